"""A commit is private wherever it is made, if any import of its repository was."""

import shutil

import pytest
from git_repository import GitRepository, quiet

from hydra_edge import Record
from hydra_edge.githook import Repository, as_before, is_private
from hydra_edge.importers import ImportLog, read_git
from hydra_edge.importers.base import Origin
from hydra_edge.store import Store


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    quiet(monkeypatch)


@pytest.fixture
def repo(tmp_path):
    return begun(tmp_path / "repo", "repo")


@pytest.fixture
def other(tmp_path):
    """Make a repository that shares nothing with the first."""
    return begun(tmp_path / "other", "other")


@pytest.fixture
def store():
    with Store.in_memory() as store:
        yield store


def begun(path, name):
    made = GitRepository(path)
    made.write("sub/a.py", f"x = {name!r}\n")
    made.git("commit", "-q", "-m", "Start", "-m", f"The body of {name}.")
    return made


def imported(store, path, *, private=True):
    store.add(read_git(path, ImportLog(), private=private))


def imported_long_ago(store, path):
    """Add what was imported of a place before its history was rewritten: no commit tells."""
    source = Origin.of("git", path, "commit_subject", private=True).source
    store.add([Record("b", "s", "commit_subject", "f" * 40, 1.6e9, True, source)])


def test_commit_in_a_linked_worktree_of_a_private_import_is_private(repo, store, tmp_path):
    imported_long_ago(store, repo.path)
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))

    assert is_private(Repository(tmp_path / "linked"), store)


@pytest.mark.parametrize("place", [".", "sub", ".git", ".git/hooks"])
def test_commit_private_import_of_any_folder_of_the_repository_counts(repo, store, place):
    imported_long_ago(store, repo.path / place)

    assert is_private(Repository(repo.path), store)


def test_commit_private_import_of_a_linked_worktree_counts_in_the_main_one(repo, store, tmp_path):
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    imported_long_ago(store, tmp_path / "linked")

    assert is_private(Repository(repo.path), store)


def test_commit_private_import_of_a_worktree_that_is_gone_counts(repo, store, tmp_path):
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    imported(store, tmp_path / "linked")
    repo.git("worktree", "remove", str(tmp_path / "linked"))

    assert is_private(Repository(repo.path), store)


def test_commit_in_a_hook_is_judged_by_its_repository_whatever_git_says_of_it(
    repo, other, store, tmp_path, monkeypatch
):
    imported(store, other.path)
    monkeypatch.chdir(repo.path)
    monkeypatch.setenv("GIT_DIR", str(repo.path / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repo.path))

    assert not is_private(Repository(), store)
    imported(store, repo.path)
    assert is_private(Repository(), store)


def test_commit_one_private_record_is_enough_and_need_not_be_the_newest(repo, store):
    imported(store, repo.path)
    newest = Record("b", "s", "commit_subject", "x", 2e9, source=f"git:{repo.path}")
    store.add([newest])

    assert is_private(Repository(repo.path), store)


def test_commit_of_a_public_import_is_public_beside_private_ones_of_others(repo, other, store):
    imported(store, repo.path, private=False)
    imported(store, other.path)
    store.add([Record("a mail", "an answer", "reply", "m1", 1.6e9, True, "mbox:/mail")])

    assert not is_private(Repository(repo.path), store)
    assert is_private(Repository(other.path), store)


def test_commit_in_a_clone_of_a_private_import_is_private(repo, store, tmp_path):
    imported(store, repo.path)
    clone = GitRepository(tmp_path / "clone")
    clone.git("pull", "-q", str(repo.path), "main")

    assert is_private(Repository(clone.path), store)


def test_commit_in_a_repository_moved_since_its_private_import_is_private(repo, store, tmp_path):
    imported(store, repo.path)
    for i in range(3):
        repo.git("commit", "-q", "--allow-empty", "-m", f"By another {i}")
    repo.path.rename(tmp_path / "moved")

    assert is_private(Repository(tmp_path / "moved"), store)


def test_commit_old_enough_is_known_by_its_commits_beyond_the_recent_ones(
    repo, store, tmp_path, monkeypatch
):
    monkeypatch.setattr("hydra_edge.githook.privacy._RECENT", 1)
    imported(store, repo.path)
    repo.git("commit", "-q", "--allow-empty", "-m", "By another")
    repo.path.rename(tmp_path / "moved")

    assert is_private(Repository(tmp_path / "moved"), store)


@pytest.mark.parametrize("time", [1.0, 2e9])
def test_commit_of_a_long_private_history_is_known_by_either_end(repo, store, monkeypatch, time):
    monkeypatch.setattr("hydra_edge.githook.privacy._RECENT", 0)
    (known,) = read_git(repo.path, ImportLog(), private=True)
    gone = [
        Record("b", f"s {i}", "commit_subject", f"{i:040x}", 9.0 + i, True, "git:/gone")
        for i in range(1000)
    ]
    store.add([*gone, Record("b", "s", "commit_subject", known.id, time, True, "git:/gone")])

    assert is_private(Repository(repo.path), store)


def test_commit_private_import_that_came_back_from_an_export_counts(repo, store):
    (record,) = read_git(repo.path, ImportLog(), private=True)
    store.add([Record(record.input, record.output, record.task, record.id, record.time, True,
                      "jsonl:/backup.jsonl")])  # fmt: skip

    assert is_private(Repository(repo.path), store)


@pytest.mark.parametrize(
    ("place", "private"), [("", True), ("repo/sub/gone", True), ("gone", False), ("repo2", False)]
)
def test_commit_import_of_a_folder_git_knows_nothing_of_counts_if_it_may_be_ours(
    repo, store, tmp_path, place, private
):
    imported_long_ago(store, tmp_path / place)

    assert is_private(Repository(repo.path), store) is private


def test_commit_git_that_cannot_say_whether_it_holds_a_commit_is_private(
    repo, store, tmp_path, monkeypatch
):
    imported_long_ago(store, tmp_path / "gone")
    repository = Repository(repo.path)
    assert not is_private(repository, store)
    shutil.rmtree(repo.path / ".git" / "objects")

    assert is_private(repository, store)


def test_commit_in_a_partial_clone_fetches_nothing(repo, store, tmp_path):
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    repo.git("clone", "-q", "--filter=blob:none", f"file://{repo.path}", str(clone))
    repo.git("-C", str(clone), "config", "remote.origin.uploadpack", f"touch {tmp_path}/asked;")
    imported_long_ago(store, tmp_path / "gone")

    assert not is_private(Repository(clone), store)
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("place", ["caf\udce9", "linked"])
def test_commit_in_a_folder_whose_name_is_no_text_is_private_like_its_import(
    store, tmp_path, place
):
    repo = begun(tmp_path / "caf\udce9", "repo")
    repo.git("worktree", "add", "-q", str(tmp_path / "linked"))
    imported_long_ago(store, tmp_path / place)

    assert is_private(Repository(repo.path), store)


def test_commit_before_any_other_in_an_empty_store_is_public(store, tmp_path):
    assert not is_private(Repository(GitRepository(tmp_path / "new").path), store)


# ---- what is read of a repository again


def read_again(store, path):
    repository = Repository(path, bare=True)
    return store.add(as_before(read_git(path, ImportLog()), repository, store))


def private_of(store):
    return {record.output: record.private for record in store.records()}


def test_read_again_new_commits_of_a_private_repository_are_private(repo, store):
    imported(store, repo.path)
    repo.git("commit", "-q", "--allow-empty", "-m", "Next", "-m", "Why it is next.")
    result = read_again(store, repo.path)

    assert (result.added, result.unchanged) == (1, 1)
    assert private_of(store) == {"Start": True, "Next": True}


def test_read_again_commits_made_public_stay_so(repo, store):
    imported(store, repo.path)
    for name in ("Next", "Last"):
        repo.git("commit", "-q", "--allow-empty", "-m", name, "-m", f"Why it is {name}.")
        imported(store, repo.path)
    store.set_private([record.id for record in store.records() if record.output == "Next"], False)
    result = read_again(store, repo.path)

    assert (result.updated, result.unchanged) == (0, 3)
    assert private_of(store) == {"Start": True, "Next": False, "Last": True}


def test_read_again_new_commits_of_a_public_repository_are_public(repo, other, store):
    imported(store, repo.path, private=False)
    imported(store, other.path)
    repo.git("commit", "-q", "--allow-empty", "-m", "Next", "-m", "Why it is next.")
    (newest, *_) = as_before(read_git(repo.path, ImportLog()), Repository(repo.path), store)

    assert not newest.private


@pytest.mark.parametrize("place", [".git", "bare"])
def test_read_again_a_place_without_files_is_known_like_any_other(repo, store, tmp_path, place):
    path = repo.path / ".git"
    if place == "bare":
        path = tmp_path / "bare"
        repo.git("clone", "-q", "--bare", str(repo.path), str(path))
    imported(store, repo.path)
    found = read_git(path, ImportLog(), author="ada", task="headline")
    (record,) = as_before(found, Repository(path, bare=True), store)

    assert record.private


def test_commits_no_record_has_are_looked_up_once_each(repo, store):
    for i in range(3):
        repo.git("commit", "-q", "--allow-empty", "-m", f"Change {i}")
    statements = []
    store._db.connection.set_trace_callback(statements.append)
    assert not is_private(Repository(repo.path), store)
    store._db.connection.set_trace_callback(None)
    assert sum("records WHERE id" in statement for statement in statements) == 4
