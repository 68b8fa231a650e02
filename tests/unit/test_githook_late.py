"""A lesson that a crash after the commit cut off is learned before the next one, once."""

import hook_runner
import pytest
from hook_runner import HINTS, PARSER, Kept, be_prepare, commit, never

from hydra_edge import Personalizer, Record
from hydra_edge.errors import CancelledError, StoreError
from hydra_edge.githook import Repository, hooks
from hydra_edge.githook.proposal import COMMITTED, PENDING, be_hook, learn_from_commit

repo, llm, person = hook_runner.repo, hook_runner.llm, hook_runner.person
TASK = "commit_subject"


@pytest.fixture
def broken(monkeypatch):
    """Let a method of a personalizer end in an error, before or after it did its work."""

    def breaks(name: str, err: BaseException, *, after: bool = False) -> None:
        whole = getattr(Personalizer, name)

        def broken(*given, **options):
            if after:
                whole(*given, **options)
            monkeypatch.setattr(Personalizer, name, whole)
            raise err

        monkeypatch.setattr(Personalizer, name, broken)

    return breaks


def left(repo) -> set[str]:
    return {name for name in (PENDING, COMMITTED) if (repo.path / ".git" / name).exists()}


def next_commit(repo, person) -> None:
    """Begin another commit: git's own script removes what was proposed and not committed."""
    (repo.path / ".git" / PENDING).unlink(missing_ok=True)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    be_prepare(repo, person)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', "\x00"])
def test_what_a_lesson_left_damaged_is_dropped(repo, person, text):
    (repo.path / ".git" / COMMITTED).write_text(text)
    next_commit(repo, person)
    assert left(repo) == set()


@pytest.mark.parametrize("err", [KeyboardInterrupt(), StoreError("no space is left")])
@pytest.mark.parametrize("after", [False, True])
def test_commit_whose_lesson_was_cut_off_teaches_once_before_the_next(
    repo, person, broken, err, after
):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    broken("choose_as", err, after=after)
    with pytest.raises(type(err)):
        learn_from_commit(Repository(), Kept(person))
    assert left(repo) == {COMMITTED}
    before = person.store.choices()
    assert len(before) == after

    next_commit(repo, person)
    (choice,) = person.store.choices(TASK)
    assert choice.text == proposed
    assert choice.record_id == repo.git("rev-parse", "HEAD")
    assert before in ([], [choice])
    head = person.store.head(TASK, "adapter")
    assert (head.version, head.n_queries) == (1, 1)
    assert left(repo) == set()


def test_lesson_cut_off_and_committed_upon_since_is_given_up(repo, person, broken):
    repo.write("parser.py", PARSER)
    commit(repo, person)
    broken("choose_as", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        learn_from_commit(Repository(), Kept(person))
    repo.git("commit", "-q", "--allow-empty", "-m", "Given on the command line")

    next_commit(repo, person)
    assert person.store.choices() == []
    assert left(repo) == set()


@pytest.fixture(params=["limit", "crash"])
def cut_off(request, repo, person, broken):
    """Commit upon a first commit, which gives what was proposed; the lesson is cut off."""
    repo.git("commit", "-q", "--allow-empty", "-m", "Base")
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    person.add(Record(f"a note {i}", f"Title {i}", TASK, f"n{i}") for i in range(9))
    if request.param == "limit":
        with pytest.raises(CancelledError):
            learn_from_commit(Repository(), Kept(person), should_stop=lambda: True)
    else:
        broken("choose_as", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            learn_from_commit(Repository(), Kept(person))
    return proposed


@pytest.mark.usefixtures("cut_off")
@pytest.mark.parametrize("elsewhere", ["reset", "checkout"])
@pytest.mark.parametrize("body", [(), ("-m", "With a body.")])
def test_lesson_cut_off_teaches_nothing_of_another_commit_in_its_place(
    repo, person, elsewhere, body
):
    choices, ids = person.store.choices(), {record.id for record in person.store.records()}
    if elsewhere == "reset":
        repo.git("reset", "-q", "--hard", "HEAD~")
    else:
        repo.git("checkout", "-q", "-b", "side", "HEAD~")
    repo.git("commit", "-q", "--allow-empty", "-m", "Bump version to 2.0", *body)

    next_commit(repo, person)
    assert person.store.choices() == choices
    assert {record.id for record in person.store.records()} == ids
    assert left(repo) == set()


def test_choice_taken_back_after_a_kill_is_not_learned_again(repo, person, monkeypatch):
    repo.write("parser.py", PARSER)
    commit(repo, person)
    note, whole = repo.path / ".git" / COMMITTED, Personalizer.choose_as
    left_there = []

    def killed(*given, **options):
        whole(*given, **options)
        left_there.append(note.read_text())

    with monkeypatch.context() as patched:
        patched.setattr(Personalizer, "choose_as", killed)
        learn_from_commit(Repository(), Kept(person))
    note.write_text(*left_there)
    person.undo_choice()

    next_commit(repo, person)
    assert person.store.choices() == []


def stored_unlearned(repo, person, broken):
    """Commit what was proposed, and return its choice; the lesson is cut off behind it."""
    repo.write("parser.py", PARSER)
    commit(repo, person)
    broken("choose_as", KeyboardInterrupt(), after=True)
    with pytest.raises(KeyboardInterrupt):
        learn_from_commit(Repository(), Kept(person))
    (choice,) = person.store.choices()
    return choice


def test_lesson_cut_off_leaves_what_was_said_otherwise_since(repo, person, broken):
    choice = stored_unlearned(repo, person, broken)
    person.choose(text="Said by hand", generation_id=choice.generation_id)
    choices = person.store.choices()

    next_commit(repo, person)
    assert person.store.choices() == choices


@pytest.mark.parametrize("undo", ["choose", "forget"])
def test_lesson_cut_off_brings_nothing_back_that_was_taken_back_since(repo, person, broken, undo):
    choice = stored_unlearned(repo, person, broken)
    if undo == "choose":
        person.undo_choice(generation_id=choice.generation_id)
    else:
        person.forget([choice.record_id])
    choices, ids = person.store.choices(), {record.id for record in person.store.records()}

    next_commit(repo, person)
    assert person.store.choices() == choices
    assert {record.id for record in person.store.records()} == ids


def test_commit_is_learned_at_once_where_nothing_can_be_noted(repo, person, monkeypatch):
    repo.write("parser.py", PARSER)
    commit(repo, person)

    def full(*_):
        raise OSError("no space is left")

    monkeypatch.setattr("hydra_edge.githook.proposal.write_private", full)
    assert learn_from_commit(Repository(), Kept(person))
    assert left(repo) == set()


def test_lesson_that_fails_again_does_not_keep_the_next_proposal_away(repo, person, broken):
    repo.write("parser.py", PARSER)
    commit(repo, person)
    broken("choose_as", StoreError("no space is left"))
    with pytest.raises(StoreError):
        learn_from_commit(Repository(), Kept(person))
    repo.write("parser.py", PARSER + "\n")
    broken("choose_as", StoreError("no space is left"))

    next_commit(repo, person)
    assert left(repo) == {PENDING}
    assert person.store.choices() == []


def test_commit_made_elsewhere_after_a_proposal_is_no_lesson(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    assert be_prepare(repo, person)
    repo.git("commit", "-q", "-m", "By a program that runs no hooks")

    next_commit(repo, person)
    assert person.store.choices() == []


def test_lesson_learned_is_not_tried_again(repo, person):
    repo.write("parser.py", PARSER)
    commit(repo, person)
    assert learn_from_commit(Repository(), Kept(person))
    opened = Kept(person)
    be_hook(
        "prepare-commit-msg", [".git/COMMIT_EDITMSG"], task=TASK, open_person=opened,
        should_stop=never,
    )  # fmt: skip
    assert opened.opened == 0


def test_lesson_stopped_by_the_limit_moves_the_head_before_the_next_commit(repo, person):
    repo.write("parser.py", PARSER)
    commit(repo, person)
    person.add(Record(f"a note {i}", f"Title {i}", TASK, f"n{i}") for i in range(9))
    with pytest.raises(CancelledError, match="The choice is kept"):
        learn_from_commit(Repository(), Kept(person), should_stop=lambda: True)
    choices = person.store.choices()
    assert person.store.head(TASK, "adapter") is None

    next_commit(repo, person)
    assert person.store.head(TASK, "adapter").n_queries == 1
    assert person.store.choices() == choices


def test_uninstall_removes_what_a_lesson_left(repo):
    (repo.path / ".git" / COMMITTED).write_text("{}")
    hooks.uninstall(Repository())
    assert left(repo) == set()
