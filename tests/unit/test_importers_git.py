from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from importing import stopped_at_the_third

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers import ImportLog, read_git
from hydra_edge.importers.git import drop_trailers
from hydra_edge.store import Store

ADA, BOB = "Ada Ünal <ada@example.org>", "Bob [x] <bob@example.org>"


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Keep the developer's own git settings out of the tests."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


class Repo:
    """A real repository whose commits have fixed identities and dates."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.clock = 1_600_000_000
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", *options)

    def git(self, *arguments: str, who: str = ADA, text: bytes = b"") -> bytes:
        name, email = who[:-1].split(" <")
        date = f"{self.clock} +0200"
        identity = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", name), ("EMAIL", email), ("DATE", date))
        }
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        return subprocess.run(
            ["git", "-C", str(self.path), "-c", "commit.gpgsign=false", *arguments],
            check=True,
            capture_output=True,
            input=text,
            env=os.environ | identity | quiet,
        ).stdout

    def commit(self, message: str | bytes, who: str = ADA, *options: str) -> str:
        self.clock += 60
        text = message.encode() if isinstance(message, str) else message
        arguments = ("--allow-empty", "--allow-empty-message", "--cleanup=verbatim", "-q")
        self.git("commit", *arguments, "-F", "-", *options, who=who, text=text)
        return self.git("rev-parse", "HEAD").decode().strip()


@pytest.fixture
def repo(tmp_path) -> Repo:
    made = Repo(tmp_path / "repo")
    made.git("config", "user.email", "ADA@example.org")
    return made


def read(repo: Repo | Path, **options):
    log = ImportLog()
    return list(read_git(getattr(repo, "path", repo), log, **options)), log


def test_git_commit_becomes_body_and_subject(repo):
    sha = repo.commit("Fix the 🐛 in\nthe parser\n\nIt ate CJK: 日本語.\n\nAnd RTL: שלום.\n")
    [record], log = read(repo)
    assert record.output == "Fix the 🐛 in the parser"
    assert record.input == "It ate CJK: 日本語.\n\nAnd RTL: שלום."
    assert (record.id, record.task) == (sha, "commit_subject")
    assert record.time == repo.clock
    assert record.source == f"git:{repo.path}"
    assert (log.read, log.done, log.total, log.unit) == (1, 1, 1, "commits")


def test_git_read_twice_gives_identical_records(repo):
    repo.commit("A\n\na")
    repo.commit("B\n\nb")
    assert read(repo) == read(repo)


def test_git_default_author_is_the_configured_address_alone(repo):
    repo.commit("Mine\n\nbody")
    repo.commit("Other\n\nbody", who=BOB)
    repo.commit("Longer\n\nbody", who="Ada <xada@example.org>")
    records, log = read(repo)
    assert [record.output for record in records] == ["Mine"]
    assert log.skipped == {"by another author": 2}


@pytest.mark.parametrize(
    ("author", "subjects"),
    [
        ("BOB [X]", ["Bob's"]),
        ("ünal", ["Ada's"]),
        ("example.org", ["Bob's", "Ada's"]),
        ("", ["Bob's", "Ada's"]),
    ],
)
def test_git_author_is_a_plain_part_of_name_or_address(repo, author, subjects):
    repo.commit("Ada's\n\nbody")
    repo.commit("Bob's\n\nbody", who=BOB)
    records, _ = read(repo, author=author)
    assert [record.output for record in records] == subjects


def test_git_unknown_author_is_refused_with_the_frequent_ones(repo):
    repo.commit("One\n\nbody", who=BOB)
    repo.commit("Two\n\nbody", who=BOB)
    repo.commit("Three\n\nbody")
    with pytest.raises(
        ImportFormatError, match=r"by 'b.b'.*Bob \[x\] <bob@example.org> \(2\), Ada"
    ):
        read(repo, author="b.b")


@pytest.mark.parametrize("known", [False, True])
def test_git_authors_to_choose_from_are_readable_with_the_option_that_does(repo, known):
    repo.git("config", *(["user.email", "b@b"] if known else ["--unset", "user.email"]))
    repo.commit("One\n\nbody", who="Аня\u202e <anja@example.org>")
    said = r"authors are Аня\\u202e <anja@example.org> \(1\)\. Choose one of them: --author NAME"
    with pytest.raises(ImportFormatError, match=said):
        read(repo)


def test_git_without_configured_address_is_refused_with_the_frequent_authors(repo):
    repo.git("config", "--unset", "user.email")
    repo.commit("One\n\nbody", who=BOB)
    with pytest.raises(
        ImportFormatError, match=r"no user\.email.*Bob \[x\] <bob@example.org> \(1\)"
    ):
        read(repo)


def test_git_merges_and_commits_of_no_use_are_left_out_and_counted(repo):
    repo.commit("Base\n\nbody")
    repo.git("checkout", "-q", "-b", "side")
    repo.commit("Side\n\nbody")
    repo.git("checkout", "-q", "main")
    repo.commit("Main\n\nbody")
    repo.git("merge", "-q", "--no-ff", "-m", "Merge it\n\nwith a body", "side")
    repo.commit("No body")
    repo.commit("Only trailers\n\nSigned-off-by: Ada <ada@example.org>\n")
    repo.commit("fixup! Main\n\nbody")
    repo.commit("squash! Main\n\nbody")
    repo.commit("amend! Main\n\nbody")
    repo.commit("")
    records, log = read(repo)
    assert [record.output for record in records] == ["Main", "Side", "Base"]
    assert log.skipped == {"no body": 3, "fixup, squash or amend commit": 3}
    assert log.total == log.done == 9


def test_git_limit_takes_the_newest(repo):
    for number in range(5):
        repo.commit(f"Number {number}\n\nbody")
    records, _ = read(repo, limit=2)
    assert [record.output for record in records] == ["Number 4", "Number 3"]
    with pytest.raises(ConfigError, match="limit is 0; expected at least 1"):
        read(repo, limit=0)


def test_git_commits_of_one_second_stay_in_the_order_they_were_made(repo):
    repo.commit("Before\n\nbody")
    for number in range(3):
        repo.commit(f"Number {number}\n\nbody")
        repo.clock -= 60
    repo.clock += 60
    repo.commit("After\n\nbody")
    records, _ = read(repo)
    with Store.in_memory() as store:
        store.add(records)
        subjects = [record.output for record in store.records()]
    assert subjects == ["Before", "Number 0", "Number 1", "Number 2", "After"]
    assert {record.output for record in read(repo, limit=3)[0]} == {"After", "Number 2", "Number 1"}


def test_git_reader_abandoned_midway_stops_git(repo):
    for number in range(3):
        repo.commit(f"Number {number}\n\n" + "x" * 200_000)
    records = read_git(repo.path, ImportLog())
    assert next(records).output == "Number 2"
    records.close()  # an unreaped process or pipe would be a ResourceWarning, an error here
    assert next(records, None) is None


def test_git_message_in_another_encoding_is_decoded(repo):
    repo.git("config", "i18n.commitEncoding", "latin-1")
    repo.commit("Später\n\nübel".encode("latin-1"))
    [record], _ = read(repo)
    assert (record.output, record.input) == ("Später", "übel")


def test_git_subfolder_and_bare_repository_are_read(repo, tmp_path):
    repo.commit("One\n\nbody")
    inner = repo.path / "-inner"
    inner.mkdir()
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repo.path), str(bare)], check=True)
    assert [r.output for r in read(inner)[0]] == ["One"]
    assert [r.output for r in read(bare, author="ada")[0]] == ["One"]


def test_git_private_and_task_mark_every_record(repo):
    repo.commit("One\n\nbody")
    [record], _ = read(repo, private=True, task="My Task")
    assert (record.private, record.task) == (True, "my_task")


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("text\n\nSigned-off-by: A <a@b>\nCo-authored-by: B <b@c>", "text"),
        ("text\r\n\r\nChange-Id: I123\r\n", "text"),
        ("text\n\nFixes: #1\n continued\n(cherry picked from commit abc)", "text"),
        ("text\n\nReviewed-by: A\nnot a trailer", "text\n\nReviewed-by: A\nnot a trailer"),
        ("one\n\nSee: this\n\ntwo", "one\n\nSee: this\n\ntwo"),
        ("Signed-off-by: A <a@b>", ""),
        ("text: yes, but\nmore words", "text: yes, but\nmore words"),
        ("two words: value", "two words: value"),
        ("", ""),
    ],
)
def test_trailers_are_dropped_only_as_a_last_paragraph_of_their_own(body, kept):
    assert drop_trailers(body) == kept


def test_git_folder_that_is_no_repository_is_refused(tmp_path):
    with pytest.raises(ImportFormatError, match="is not a git repository"):
        read(tmp_path)


def test_git_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ImportFormatError, match="is not a folder"):
        read(tmp_path / "missing")


def test_git_repository_without_commits_is_refused(repo):
    with pytest.raises(ImportFormatError, match="has no commits on its current branch"):
        read(repo)


def test_git_not_installed_is_said(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "home"))
    with pytest.raises(ImportFormatError, match=r"git is not installed.*apt install git"):
        read(repo)


def test_git_damaged_history_keeps_what_was_read_and_is_said(repo):
    lost = repo.commit("Old\n\nbody")
    repo.commit("Middle\n\nbody")
    repo.commit("New\n\nbody")
    (repo.path / ".git/objects" / lost[:2] / lost[2:]).unlink()
    log = ImportLog()
    records = read_git(repo.path, log)
    assert next(records).output == "New"
    with pytest.raises(ImportFormatError, match=r"git could not read .*Try: git fsck"):
        list(records)
    assert (log.read, log.total) == (1, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_git_repository_of_another_user_is_refused_with_advice(repo):
    repo.commit("One\n\nbody")
    for path in (repo.path, repo.path / ".git"):
        shutil.chown(path, user=65534)
    with pytest.raises(ImportFormatError, match=r"belongs to another user.*safe\.directory"):
        read(repo)


def test_git_commits_of_others_are_watched_one_by_one(repo):
    for i in range(5):
        repo.commit(f"Subject {i}\n\nBody.\n", BOB)
    seen = stopped_at_the_third(lambda log: next(read_git(repo.path, log)))
    assert seen == [1, 2, 3]
