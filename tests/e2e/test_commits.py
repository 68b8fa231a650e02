"""Real commits in a real repository, with the real hooks calling the real command."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_repository import GitRepository
from llm_server import Server, answer, completion, hang

from hydra_edge.config import find_paths
from hydra_edge.store import Store

ROOT = Path(__file__).parents[2]
ADDED = '''\
def read_header(data):
    """Read the header, which may be empty since the last release."""
    return data[:4]
'''


@pytest.fixture
def repo(tmp_path: Path, home: Path) -> GitRepository:
    """Make a repository with a history of bodies, imported for its author."""
    made = GitRepository(tmp_path / "repo")
    for i, (subject, body) in enumerate(
        [
            ("Fix empty files", "The parser read past the end of an empty file."),
            ("Drop the cache", "The cache was stale at every start."),
            ("Read old headers", "Files of the first release have no header."),
        ]
    ):
        made.write(f"f{i}.py", f"x = {i}\n")
        made.git("commit", "-q", "-m", subject, "-m", body)
    hydra("import", "git", str(made.path))
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def hydra(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "hydra_edge", *words],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def editor(tmp_path: Path, *lines: str) -> str:
    """Return an editor that keeps the message it is shown, then edits it."""
    script = tmp_path / "editor"
    script.write_text(f"#!/bin/sh\ncp \"$1\" {shlex.quote(str(tmp_path / 'shown'))}\n"
                      + "\n".join(lines) + "\n")  # fmt: skip
    script.chmod(0o755)
    return str(script)


def choices() -> list[tuple[int | None, str]]:
    with Store.open(find_paths().user_file("me"), create=False) as store:
        return [(choice.picked, choice.text) for choice in store.choices("commit_subject")]


def remote(server: Server) -> dict[str, str]:
    return {"HYDRA_EDGE_BASE_URL": server.url, "HYDRA_EDGE_MODEL": "openai:scripted",
            "HYDRA_EDGE_CANDIDATES": "2"}  # fmt: skip


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the history of a clone")
def test_commit_in_a_clone_of_this_project_is_proposed_from_its_real_history(
    server: Server, tmp_path: Path
) -> None:
    server.otherwise = answer(completion("Keep what the parser reads"))
    repo = GitRepository(tmp_path / "clone")
    repo.git("pull", "-q", str(ROOT), "HEAD")
    author = repo.git("log", "-1", "--format=%ae")
    repo.git("config", "user.email", author)
    subjects = set(repo.git("log", f"--author={author}", "--format=%s").splitlines())
    hydra("import", "git", str(repo.path), "--author", author)
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "10m", "--allow-remote")
    repo.write("parser.py", ADDED)
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path), **remote(server))
    assert done.returncode == 0, done.stderr
    assert repo.subject() == "Keep what the parser reads"
    sent = str([seen.body for seen in server.seen])
    assert sum(subject in sent for subject in subjects) >= 4, "records of this history are shown"


def test_commits_proposed_taken_edited_and_written_by_hand(
    repo: GitRepository, server: Server, tmp_path: Path
) -> None:
    server.otherwise = answer(completion("Read an empty header"))
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "10m", "--allow-remote")
    env = remote(server)

    repo.write("parser.py", ADDED)
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path), **env)
    assert done.returncode == 0, done.stderr
    shown = (tmp_path / "shown").read_text()
    assert shown.startswith("Read an empty header\n\n# The subject is a proposal of hydra-edge")
    assert "# Please enter the commit message" in shown
    assert repo.git("log", "-1", "--format=%B") == "Read an empty header"
    assert choices() == [(0, "Read an empty header")]
    sent = str([seen.body for seen in server.seen])
    assert "which may be empty since the last release" in sent
    assert "Fix empty files" in sent

    repo.write("parser.py", ADDED + "\n\n" + ADDED.replace("header", "footer"))
    edit = editor(tmp_path, "sed -i '1s/.*/Read footers, too/' \"$1\"")
    done = repo.run("commit", "-v", GIT_EDITOR=edit, **env)
    assert done.returncode == 0, done.stderr
    assert repo.git("log", "-1", "--format=%B") == "Read footers, too"
    assert choices()[1:] == [(None, "Read footers, too")]

    asked = len(server.seen)
    repo.write("c.py", ADDED)
    assert repo.run("commit", "--no-edit", **env).returncode != 0  # nobody would see a proposal
    assert repo.run("commit", "-m", "By hand", **env).returncode == 0
    assert repo.run("commit", "--amend", GIT_EDITOR="true", **env).returncode == 0
    repo.git("checkout", "-q", "-b", "side", "HEAD~1", **env)
    repo.write("d.py", ADDED)
    repo.git("commit", "-q", "-m", "On a side", **env)
    repo.git("merge", "-q", "--edit", "main", GIT_EDITOR="true", **env)
    assert repo.subject() == "Merge branch 'main' into side"
    assert len(server.seen) == asked
    assert len(choices()) == 2
    again = json.loads(hydra("import", "git", str(repo.path), "--json"))
    assert (again["added"], again["updated"], again["unchanged"]) == (0, 0, 3)


def test_commit_in_a_linked_worktree_of_a_private_import_is_private(
    server: Server, tmp_path: Path, home: Path
) -> None:
    server.otherwise = answer(completion("Read an empty header\0"))
    repo = GitRepository(tmp_path / "repo")
    repo.write("sub/a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "Start", "-m", "There was nothing yet.")
    hydra("import", "git", str(repo.path / "sub"), "--private")
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "10m", "--allow-remote")
    linked = tmp_path / "linked"
    repo.git("worktree", "add", "-q", str(linked))
    (linked / "parser.py").write_text(ADDED)
    repo.git("-C", str(linked), "add", "parser.py")
    commit = ("-C", str(linked), "commit")
    done = repo.run(*commit, GIT_EDITOR=editor(tmp_path), **remote(server))

    assert done.returncode == 0, done.stderr
    assert "hydra-edge:" not in done.stderr
    assert choices() == [(0, "Read an empty header")]
    records = json.loads(hydra("history", "list", "--json"))["records"]
    assert [(r["output"], r["private"]) for r in records] == [
        ("Read an empty header", True), ("Start", True),
    ]  # fmt: skip


def test_commit_remote_llm_is_not_asked_unless_allowed(repo: GitRepository, tmp_path: Path) -> None:
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "10m")
    repo.write("parser.py", ADDED)
    elsewhere = {"HYDRA_EDGE_BASE_URL": "https://llm.invalid/v1", "HYDRA_EDGE_MODEL": "openai:x"}
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path, 'echo Mine > "$1"'), **elsewhere)

    assert done.returncode == 0
    assert repo.subject() == "Mine"
    assert "git-hook install --allow-remote" in done.stderr
    assert (tmp_path / "shown").read_text().startswith("\n#")


def test_commit_after_the_folders_moved_says_so_and_begins_no_history(
    repo: GitRepository, tmp_path: Path, home: Path
) -> None:
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "10m")
    home.rename(tmp_path / "moved")
    repo.write("parser.py", ADDED)
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path, 'echo Mine > "$1"'))

    assert done.returncode == 0
    assert repo.subject() == "Mine"
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("hydra-edge:")]
    assert f"There is no user 'me' in {home}/users" in said
    assert said.endswith("hydra-edge git-hook install --task commit_subject --limit 10m")
    assert not home.exists()


def test_commit_llm_that_never_answers_is_not_waited_for(
    repo: GitRepository, server: Server, tmp_path: Path
) -> None:
    server.otherwise = hang
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "2s", "--allow-remote")
    repo.write("parser.py", ADDED)
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path, 'echo Mine > "$1"'), **remote(server))

    assert done.returncode == 0
    assert repo.subject() == "Mine"
    assert "nothing proposed within 2s" in done.stderr


@pytest.mark.model
def test_commit_proposed_by_the_bundled_llm(repo: GitRepository, tmp_path: Path) -> None:
    hydra("git-hook", "install", "--repo", str(repo.path), "--limit", "20m", "-m", "smollm2")
    repo.write("parser.py", ADDED)
    done = repo.run("commit", GIT_EDITOR=editor(tmp_path), HYDRA_EDGE_CANDIDATES="3")

    assert done.returncode == 0, done.stderr
    assert "hydra-edge:" not in done.stderr
    subject = repo.subject()
    assert subject
    assert (tmp_path / "shown").read_text().split("\n")[0] == subject
    picked, text = choices()[0]
    assert picked is not None
    assert text == subject
