"""Hostile repositories: they start no program, and what is wrong with them stays their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from hydra_edge.errors import ImportFormatError
from hydra_edge.githook import Repository, describe_staged, is_private
from hydra_edge.githook.proposal import PENDING, learn_from_commit
from hydra_edge.importers import ImportLog, gitprogram, read_git
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record

UNKNOWN = Record("a body", "A subject", "commit_subject", "f" * 40, 1.6e9, True, "git:/gone")


def git(folder: Path, *arguments: str, text: bytes = b"") -> bytes:
    parts = {"NAME": "Ada", "EMAIL": "ada@example.org", "DATE": "1600000000 +0000"}
    who = {f"GIT_{r}_{p}": v for r in ("AUTHOR", "COMMITTER") for p, v in parts.items()}
    return subprocess.run(
        ["git", "-c", "commit.gpgsign=false", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        input=text,
        env=os.environ | who,
    ).stdout


@pytest.fixture
def repo(tmp_path) -> Path:
    folder = tmp_path / "-repo --upload-pack=x;touch y"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.email", "ada@example.org")
    git(folder, "commit", "-q", "--allow-empty", "-m", "Subject", "-m", "Body")
    return folder


def test_git_path_like_an_option_is_only_a_path(repo, monkeypatch):
    monkeypatch.chdir(repo.parent)
    before = sorted(repo.parent.iterdir())
    [record] = read_git(Path(repo.name), ImportLog())
    assert record.output == "Subject"
    assert sorted(repo.parent.iterdir()) == before


def test_git_author_like_an_option_or_pattern_is_only_text(repo):
    for author in ("--output=/tmp/x", ".*", "$(touch x)"):
        with pytest.raises(ImportFormatError, match="No commit in"):
            list(read_git(repo, ImportLog(), author=author))


def test_git_environment_cannot_redirect_to_another_repository(repo, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "Other", "-m", "Body")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert [record.output for record in read_git(repo, ImportLog())] == ["Subject"]


def test_git_partial_clone_fetches_nothing(repo, tmp_path):
    marker = tmp_path / "fetched"
    script = tmp_path / "upload.sh"
    script.write_text(f"#!/bin/sh\ntouch '{marker}'\nexit 1\n")
    script.chmod(0o755)
    git(repo, "commit", "-q", "--allow-empty", "-m", "Newer", "-m", "Body")
    lost = git(repo, "rev-parse", "HEAD~1").decode().strip()
    (repo / ".git/objects" / lost[:2] / lost[2:]).unlink()
    git(repo, "config", "core.repositoryformatversion", "1")
    git(repo, "config", "extensions.partialClone", "origin")
    git(repo, "config", "remote.origin.promisor", "true")
    git(repo, "config", "remote.origin.url", str(tmp_path))
    git(repo, "config", "remote.origin.uploadpack", str(script))
    with pytest.raises(subprocess.CalledProcessError, match="non-zero exit"):
        git(repo, "cat-file", "-e", lost)  # newer `git log` reports a lost commit, fetching nothing
    assert marker.exists(), "the trap itself must work, or this test proves nothing"
    marker.unlink()
    with pytest.raises(ImportFormatError, match="git could not read"):
        list(read_git(repo, ImportLog()))
    assert not marker.exists()


def test_git_forged_commit_is_read_without_harm(repo):
    forged = (
        b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"
        b"author A\xff\x1b[2J <ada@example.org> 99999999999999 +9999\n"
        b"committer A <ada@example.org> 1 +0000\n\n"
        b"Forged\n\nBody \x1f \xff\n"
    )
    name = git(repo, "hash-object", "--literally", "-t", "commit", "-w", "--stdin", text=forged)
    git(repo, "update-ref", "HEAD", name.decode().strip())
    [record] = read_git(repo, ImportLog())
    assert record.output == "Forged"
    assert record.input == "Body \x1f \ufffd"
    assert record.time is None
    with pytest.raises(ImportFormatError, match="most frequent") as refusal:
        list(read_git(repo, ImportLog(), author="nobody"))
    assert "\x1b" not in str(refusal.value)


# ---- programs


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def trapped(repo, tmp_path) -> Callable[[], bool]:
    """Let the repository name programs wherever it can; tell whether one has run since."""
    marker = tmp_path / "ran"
    evil = script(tmp_path / "evil.sh", f"echo $0 >> '{marker}'\nexit 1")

    def sprung() -> bool:
        ran = marker.exists()
        marker.unlink(missing_ok=True)
        return ran

    (repo / "gone.txt").write_text("A text that is not here.\n")
    git(repo, "add", "gone.txt")
    git(repo, "commit", "-q", "-m", "Second", "-m", "Body")
    lost = git(repo, "rev-parse", "HEAD:gone.txt").decode().strip()
    head = git(repo, "cat-file", "commit", "HEAD")
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n"
    signed = head.replace(b"\n\n", b"\n" + signature + b"\n", 1)
    name = git(repo, "hash-object", "-t", "commit", "-w", "--stdin", text=signed).decode().strip()
    git(repo, "update-ref", "HEAD", name)
    git(repo, "mv", "gone.txt", "added.txt")
    (repo / "added.txt").write_text("A text that is here.\n")
    git(repo, "add", "added.txt")
    (repo / ".gitattributes").write_text("*.txt diff=trap filter=trap\n")
    settings = {
        "core.fsmonitor": evil, "core.pager": evil, "core.sshCommand": evil,
        "core.hooksPath": tmp_path, "gpg.program": evil, "log.showSignature": "true",
        "diff.external": evil, "diff.trap.command": evil, "diff.trap.textconv": evil,
        "filter.trap.clean": evil, "pager.log": "true", "core.editor": evil,
        "core.alternateRefsCommand": evil, "log.diffMerges": "on", "format.pretty": "raw",
        "core.repositoryformatversion": 1, "extensions.partialClone": "origin",
        "remote.origin.promisor": "true", "remote.origin.url": tmp_path,
        "remote.origin.uploadpack": evil,
    }  # fmt: skip
    for key, value in settings.items():
        git(repo, "config", key, str(value))
    (repo / ".git/objects" / lost[:2] / lost[2:]).unlink()
    sprung()
    asked = (["log", "-1"], ["status"], ["diff", "--cached", "--raw", "-M", "--no-ext-diff"])
    for question in asked:
        subprocess.run(["git", *question], cwd=repo, capture_output=True, check=False)
        assert sprung(), "the trap itself must work, or this test proves nothing"
    return sprung


def test_git_settings_start_no_program_while_a_history_is_read(repo, trapped):
    first, second = read_git(repo, ImportLog())  # of one second: as they were made
    assert (second.input, second.output, first.output) == ("Body", "Second", "Subject")
    assert not trapped()


@pytest.mark.parametrize("in_hook", [False, True])
def test_git_settings_start_no_program_while_a_change_is_described(
    repo, trapped, in_hook, monkeypatch
):
    monkeypatch.chdir(repo)
    repository = Repository(None if in_hook else repo)
    assert describe_staged(repository) == "Add added.txt. Delete gone.txt. A text that is here."
    assert not trapped()


def test_git_settings_start_no_program_while_it_is_asked_what_is_private(repo, trapped):
    with Store.in_memory() as store:
        store.add([UNKNOWN])
        assert not is_private(Repository(repo), store)
    assert not trapped()


def test_git_settings_start_no_program_while_a_commit_is_learned_from(
    repo, trapped, hash_encoder, scripted
):
    llm = scripted(lambda _prompt, n: ["Second", "Another"][:n])
    with Personalizer.from_records([UNKNOWN], llm=llm, encoder=hash_encoder) as me:
        made = me.generate("a change", task="commit_subject")
        before = git(repo, "rev-parse", "HEAD^1").decode().strip()
        pending = f'{{"generation_id": "{made.id}", "head": "{before}"}}'
        (repo / ".git" / PENDING).write_text(pending)
        trapped()
        assert learn_from_commit(Repository(repo), lambda: nullcontext(me))
        (choice,) = me.store.choices("commit_subject")
        assert (choice.text, me.store.get(choice.record_id).input) == ("Second", "Body")
    assert not trapped()


@pytest.mark.parametrize(("system", "name"), [("linux", "git"), ("win32", "git.exe")])
def test_git_of_the_repository_itself_is_not_run(repo, tmp_path, monkeypatch, system, name):
    marker = tmp_path / "ran"
    script(repo / name, f"touch '{marker}'")
    script(tmp_path / "bin" / name, f"exec '{shutil.which('git')}' \"$@\"")
    monkeypatch.setenv("PATH", os.pathsep.join([".", "", str(tmp_path / "bin")]))
    monkeypatch.setenv("PATHEXT", ".exe")
    windows = SimpleNamespace(platform=system)
    monkeypatch.setattr(gitprogram, "sys", windows)
    monkeypatch.setattr(shutil, "sys", windows)  # as it looks on Windows: here before anywhere
    monkeypatch.chdir(repo)
    assert len(list(read_git(Path(), ImportLog()))) == 1
    assert Repository(Path()).head
    assert not marker.exists()
    monkeypatch.setenv("PATH", ".")
    with pytest.raises(ImportFormatError, match="git is not installed"):
        list(read_git(Path(), ImportLog()))
