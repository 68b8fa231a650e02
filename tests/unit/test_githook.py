"""A commit from proposal to lesson, and the limit on the hook's time."""

import json
import stat
import threading

import hook_runner
import pytest
from hook_runner import HINTS, PARSER, Kept, be_prepare, commit, never

from hydra_edge import Record
from hydra_edge.errors import CancelledError, ConfigError
from hydra_edge.githook import Repository
from hydra_edge.githook.limit import within
from hydra_edge.githook.proposal import PENDING, be_hook, learn_from_commit
from hydra_edge.importers import ImportLog, read_git

repo, llm, person = hook_runner.repo, hook_runner.llm, hook_runner.person


def test_commit_as_proposed_is_a_pick(repo, person, llm):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    assert learn_from_commit(Repository(), Kept(person))

    (choice,) = person.store.choices("commit_subject")
    assert repo.subject() == proposed == choice.text
    assert choice.candidates[choice.picked].text == proposed
    assert person.store.head("commit_subject", "adapter").version == 1
    record = person.store.get(repo.git("rev-parse", "HEAD"))
    assert record.output == proposed
    assert record.input == llm.prompts[0].query.replace("\n", " ")
    assert choice.record_id == record.id
    assert not (repo.path / ".git" / PENDING).exists()
    assert not learn_from_commit(Repository(), Kept(person))


def test_commit_of_a_proposal_chosen_before_teaches_once(repo, person):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    made = person.store.last_generation()
    place = [candidate.text for candidate in made.candidates].index(proposed) + 1
    person.choose(generation_id=made.id, pick=place, keep=False)
    assert learn_from_commit(Repository(), Kept(person))
    assert person.store.head("commit_subject", "adapter").n_queries == 1
    (choice,) = person.store.choices("commit_subject")
    assert choice.record_id == repo.git("rev-parse", "HEAD")


@pytest.mark.parametrize("date", ["@1700000000 +0000", "@2023 +0000", "@99999999999999 +0000"])
def test_commit_edited_is_a_text_and_its_record_the_importers(repo, person, date):
    repo.write("parser.py", PARSER)
    text = "Accept empty headers\n\nThey are\nvalid.\n\nSigned-off-by: A <a@b>\n"
    commit(repo, person, text, f"--date={date}")
    assert learn_from_commit(Repository(), Kept(person))

    (choice,) = person.store.choices("commit_subject")
    assert choice.picked is None
    assert choice.text == "Accept empty headers"
    again = person.add(read_git(repo.path, ImportLog()))
    assert (again.added, again.updated, again.unchanged) == (0, 0, 1)


def test_commit_of_a_history_imported_as_private_is_private(repo, person):
    repo.write("a.py", "x = 1\n")
    repo.git("commit", "-q", "-m", "Start", "-m", "A body.")
    person.add(read_git(repo.path, ImportLog(), private=True))
    repo.write("parser.py", PARSER)
    commit(repo, person)
    learn_from_commit(Repository(), Kept(person))

    assert person.store.get(repo.git("rev-parse", "HEAD")).private


def test_commit_whose_time_is_over_is_kept_though_nothing_is_learned_yet(repo, person):
    repo.write("parser.py", PARSER)
    proposed = commit(repo, person)
    person.add(Record(f"a note {i}", f"Title {i}", "commit_subject", f"n{i}") for i in range(9))
    with pytest.raises(CancelledError, match="The choice is kept"):
        be_hook(
            "post-commit", [], task="commit_subject", open_person=Kept(person),
            should_stop=lambda: True,
        )  # fmt: skip

    (choice,) = person.store.choices("commit_subject")
    assert choice.text == proposed
    assert person.store.head("commit_subject", "adapter") is None
    person.fit_head("commit_subject", use_llm=False)
    assert person.store.head("commit_subject", "adapter").n_queries == 1


def test_commit_given_up_teaches_nothing_of_the_next(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    assert be_prepare(repo, person)
    be_prepare(repo, person, "message")
    repo.git("commit", "-q", "-m", "Another one")

    assert not learn_from_commit(Repository(), Kept(person))
    assert not person.store.choices()


def test_commit_upon_another_head_teaches_nothing(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    assert be_prepare(repo, person)
    for i in range(2):
        repo.git("commit", "-q", "--allow-empty", "-m", f"Elsewhere {i}")

    assert not learn_from_commit(Repository(), Kept(person))


@pytest.mark.parametrize(
    ("text", "options"),
    [("fixup! Start\n", ()), ("Fix it\n", ("--author", "Bob <bob@example.org>"))],
)
def test_commit_that_is_not_the_authors_style_teaches_nothing(repo, person, text, options):
    repo.write("parser.py", PARSER)
    commit(repo, person, text, *options)

    assert not learn_from_commit(Repository(), Kept(person))
    assert not person.store.choices()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', ""])
def test_pending_file_damaged_is_dropped(repo, person, text):
    pending = repo.path / ".git" / PENDING
    pending.write_text(text)

    assert not learn_from_commit(Repository(), Kept(person))
    assert not pending.exists()


def test_pending_file_is_private_and_holds_no_text(repo, person):
    repo.write("parser.py", PARSER)
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)
    be_prepare(repo, person)
    pending = repo.path / ".git" / PENDING

    assert stat.S_IMODE(pending.stat().st_mode) == 0o600
    told = json.loads(pending.read_text())
    assert set(told) == {"generation_id", "head", "commit", "stored"}


def test_nothing_staged_opens_the_llm_for_nothing(repo, person, llm):
    (repo.path / ".git" / "COMMIT_EDITMSG").write_text(HINTS)

    assert be_prepare(repo, person) is None
    assert not llm.prompts


def test_be_hook_unknown_is_refused(repo, person):
    with pytest.raises(ConfigError, match="expected prepare-commit-msg"):
        be_hook("pre-push", [], task="t", open_person=Kept(person), should_stop=never)


# ---- the limit


def test_within_too_long_is_a_timeout():
    release = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, lambda _stop: release.wait(60))
    release.set()


def test_within_says_when_to_come_to_an_end():
    times = iter([100.0, 179.0, 180.0])

    told = within(100.0, lambda stop: [stop(), stop()], clock=lambda: next(times))

    assert told == [False, True]


def test_within_errors_are_raised_where_it_is_waited_for():
    def work(_stop):
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing"):
        within(60.0, work)
