"""The scripts in a repository's hooks: installed beside those of others, and taken out again."""

import errno
import json
import os
import subprocess
from pathlib import Path

import hook_runner
import pytest
from cli_runner import call
from hook_runner import PARSER

from hydra_edge.errors import ConfigError
from hydra_edge.githook import Repository, hooks
from hydra_edge.githook.proposal import PENDING
from hydra_edge.program import environment

repo = hook_runner.repo


def test_install_is_idempotent_and_uninstall_leaves_nothing(repo):
    repository = Repository(repo.path)
    before = {p.name for p in (repo.path / ".git" / "hooks").iterdir()}
    states = hooks.install(repository, ["/opt/hydra-edge"], ["--user", "a b"], {"HOME_X": "it's"})
    texts = [state.path.read_text() for state in states]

    assert [state.name for state in states] == ["prepare-commit-msg", "post-commit"]
    assert all(state.installed and not state.chained for state in states)
    assert all(os.access(state.path, os.X_OK) for state in states)
    assert "--user 'a b'" in texts[0]
    hooks.install(repository, ["/opt/hydra-edge"], ["--user", "a b"], {"HOME_X": "it's"})
    assert [state.path.read_text() for state in states] == texts
    assert len(hooks.uninstall(repository)) == 2
    assert {p.name for p in (repo.path / ".git" / "hooks").iterdir()} == before
    assert not hooks.uninstall(repository)


def test_install_hook_of_another_is_chained_and_comes_back(repo):
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\necho other >> ran\n")
    hook.chmod(0o755)
    repository = Repository(repo.path)
    states = hooks.install(repository, ["/nowhere/hydra-edge"], [], {})
    assert states[0].chained

    repo.write("a.py", PARSER)
    done = repo.run("commit", "-q", GIT_EDITOR="echo Start >")
    assert done.returncode == 0
    assert (repo.path / "ran").read_text() == "other\n"
    assert "is gone" in done.stderr
    hooks.uninstall(repository)
    assert hook.read_text() == "#!/bin/sh\necho other >> ran\n"
    assert os.access(hook, os.X_OK)


def test_install_chained_hook_that_refuses_still_refuses(repo):
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\nexit 3\n")
    hook.chmod(0o755)
    hooks.install(Repository(repo.path), ["/bin/true"], [], {})
    repo.write("a.py", PARSER)

    assert repo.run("commit", "-q", "-m", "Start").returncode != 0


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/hydra-edge"])
def test_script_whatever_happens_to_us_the_commit_is_made(repo, program):
    hooks.install(Repository(repo.path), [program], [], {})
    repo.write("a.py", PARSER)
    done = repo.run("commit", "-q", GIT_EDITOR="echo Start >")

    assert done.returncode == 0
    assert repo.subject() == "Start"


def test_script_message_that_is_given_starts_nothing_and_ends_a_proposal(repo, tmp_path):
    program = tmp_path / "hydra-edge"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    hooks.install(Repository(repo.path), [str(program)], [], {})
    pending = repo.path / ".git" / PENDING
    pending.write_text("{}")
    repo.write("a.py", PARSER)
    repo.git("commit", "-q", "-m", "Start")

    assert not pending.exists()
    assert not (tmp_path / "started").exists()
    repo.git("commit", "-q", "--allow-empty", GIT_EDITOR="echo Next >")
    assert (tmp_path / "started").exists()


def test_script_finds_the_folders_of_its_installation(repo, tmp_path, monkeypatch):
    monkeypatch.delenv("HYDRA_EDGE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "da ta"))
    monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    program = tmp_path / "hydra-edge"
    program.write_text(f'#!/bin/sh\necho "$XDG_DATA_HOME $HYDRA_EDGE_OFFLINE" > {tmp_path}/told\n')
    program.chmod(0o755)
    hooks.install(Repository(repo.path), [str(program)], [], environment())
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("HYDRA_EDGE_OFFLINE")
    repo.write("a.py", PARSER)
    repo.git("commit", "-q", GIT_EDITOR="echo Start >")

    assert (tmp_path / "told").read_text() == f"{tmp_path}/da ta 1\n"


def test_installed_is_what_install_was_given_whatever_is_in_it(repo):
    options, variables = ["--user", "a b", "-m", "$(x)"], {"H": "it's\\=`y`", "XDG": "/da ta"}
    repository = Repository(repo.path)
    assert hooks.installed(repository) is None
    state = hooks.install(repository, ["/a b/it's"], options, variables)[0]

    assert hooks.installed(repository) == hooks.Installed(options, variables)
    state.path.write_text(state.path.read_text().replace("git-hook run", "git-hook ruin"))
    assert hooks.installed(repository) is None


def test_script_is_one_any_posix_shell_reads(repo):
    states = hooks.install(Repository(repo.path), ["/a b/it's"], ["-m", "$(x)"], {"H": "`y`"})
    for state in states:
        assert subprocess.run(["sh", "-n", state.path], check=False).returncode == 0


def test_install_hooks_path_is_respected(repo):
    repo.git("config", "core.hooksPath", ".githooks")
    repository = Repository(repo.path)
    states = hooks.install(repository, ["/bin/true"], [], {})

    assert states[0].path == repo.path / ".githooks" / "prepare-commit-msg"
    assert not (repo.path / ".git" / "hooks" / "prepare-commit-msg").exists()
    assert "do not commit them" in hooks.remarks(repository)[0]


def test_install_two_hooks_of_others_are_refused(repo):
    folder = repo.path / ".git" / "hooks"
    for name in ("post-commit", "post-commit.before-hydra-edge"):
        (folder / name).write_text("#!/bin/sh\n")

    with pytest.raises(ConfigError, match="Two hooks want one name"):
        hooks.install(Repository(repo.path), ["/bin/true"], [], {})
    assert not (folder / "prepare-commit-msg").exists()


def test_uninstall_hook_that_is_not_ours_is_left(repo):
    hook = repo.path / ".git" / "hooks" / "post-commit"
    hook.write_text("#!/bin/sh\n")

    assert not hooks.uninstall(Repository(repo.path))
    assert hook.exists()


# ---- an installation that ends half-way


@pytest.fixture
def theirs(repo):
    """Have a hook of another in the repository, and let it tell whether it ran."""
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.write_text("#!/bin/sh\necho other >> ran\n")
    hook.chmod(0o755)

    def runs():
        (repo.path / "ran").unlink(missing_ok=True)
        repo.git("commit", "-q", "--allow-empty", "-m", "Next")
        return (repo.path / "ran").exists()

    return runs


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_install_that_fails_leaves_the_hook_of_another_in_service(repo, theirs, broken):
    def unwritable(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = os if broken == "fsync" else Path
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, broken, unwritable)
        with pytest.raises(ConfigError, match="No space left"):
            hooks.install(Repository(repo.path), ["/bin/true"], [], {})
    assert theirs()
    assert not any(state.chained for state in hooks.states(Repository(repo.path)))


@pytest.mark.parametrize("next_", [["uninstall"], ["install"], ["install", "uninstall"]])
def test_install_that_was_killed_is_seen_and_mended_by_either(repo, theirs, next_):
    place = ("--repo", str(repo.path))
    hook = repo.path / ".git" / "hooks" / "prepare-commit-msg"
    hook.rename(hook.with_name(hook.name + hooks.BEFORE))
    assert "your own hook does not run" in call("git-hook", "status", *place).stdout
    assert json.loads(call("git-hook", "status", *place, "--json").stdout)["hooks"][0]["set_aside"]

    for command in next_:
        done = call("git-hook", command, *place)
    if next_ == ["uninstall"]:
        assert done.stdout == f"{hook}: the hook before it is back\n"
    assert theirs()
    assert "does not run" not in call("git-hook", "status", *place).stdout
