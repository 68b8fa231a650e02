"""What an import that prunes leaves to others of the user's sources, and what it does not."""

import json
import os
from pathlib import Path

import cli_runner
import pytest
from cli_runner import call, loaded, records
from store_items import make_head
from test_importers_chatgpt import conversation, message
from test_importers_mbox import mail
from test_importers_mbox import write as write_mails

from hydra_edge.cli import erasing
from hydra_edge.config import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.store.moved import is_later_export

_own_folder = cli_runner.own_folder


def outputs():
    return sorted(record.output for record in records())


def owners():
    """Return which file each record is of."""
    return {record.output: Path(record.source).name for record in records()}


def box(name, letters):
    """Write an mbox file anew, a mail for each letter."""
    Path(name).unlink(missing_ok=True)
    write_mails(name, *(mail(subject=letter, Message_ID=f"<{letter}@x>") for letter in letters))


def imported(name, letters=None):
    if letters is not None:
        box(name, letters)
    call("import", "mbox", str(name))


def prune(*args):
    told = call("import", *args, "--prune", "--yes")
    assert told.exit_code == 0, told.output
    return told


@pytest.fixture
def moved_mail(tmp_path):
    """Import two boxes; a mail has gone from the first to the second, which is imported again."""
    imported(tmp_path / "Inbox", "ABD")
    imported(tmp_path / "Archive", "C")
    box(tmp_path / "Inbox", "A")
    imported(tmp_path / "Archive", "CB")
    return tmp_path


def test_mail_that_another_box_has_stays_as_that_one_s(moved_mail, monkeypatch):
    told = f"1 record no longer there is in mbox:{moved_mail / 'Archive'}, too: it stays"
    assert told in call("import", "mbox", "Inbox", "--prune", "--dry-run").stderr
    assert owners() == {"A": "Inbox", "B": "Inbox", "C": "Archive", "D": "Inbox"}
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    asked = call("import", "mbox", "Inbox", "--prune", text="n\n").stderr
    assert told in asked
    assert "Erase 1 record no longer in" in asked
    assert owners()["B"] == "Inbox"
    done = call("import", "mbox", "Inbox", "--prune", text="y\n")
    assert "Forgotten: 1 record," in done.stdout
    assert told in done.stderr
    assert owners() == {"A": "Inbox", "B": "Archive", "C": "Archive"}


def test_mail_that_another_box_has_is_counted_for_programs(moved_mail):
    archive = f"mbox:{moved_mail / 'Archive'}"
    with Personalizer.open() as me:
        me.store.save_head(make_head("email_subject"))
    imported(moved_mail / "Inbox", "AD")
    for args in (["--dry-run"], ["--yes"]):
        payload = loaded("import", "mbox", "Inbox", "--prune", *args, "--json")["pruned"]
        assert (payload["records"], payload["in_other_sources"]) == (0, {archive: 1})
    assert owners()["B"] == "Archive"
    with Personalizer.open() as me:
        assert [head.stale for head in me.store.heads()] == [False]
    assert loaded("import", "mbox", "Inbox", "--prune", "--yes", "--json")["pruned"] == {
        **payload, "in_other_sources": {}, "total": 2
    }  # fmt: skip


def test_mail_that_neither_box_has_any_more_goes_by_the_first(moved_mail):
    box(moved_mail / "Archive", "C")
    prune("mbox", "Archive")
    prune("mbox", "Inbox")
    assert outputs() == ["A", "C"]


def test_mail_that_neither_box_has_any_more_goes_by_the_second(moved_mail):
    prune("mbox", "Inbox")
    box(moved_mail / "Archive", "C")
    prune("mbox", "Archive")
    assert outputs() == ["A", "C"]


def test_box_most_of_which_is_not_there_is_remembered_as_it_was(tmp_path):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    imported(tmp_path / "Inbox", letters)
    imported(tmp_path / "Archive", letters)
    box(tmp_path / "Archive", "A")
    prune("mbox", "Archive")
    imported(tmp_path / "Inbox", "A")
    prune("mbox", "Inbox")
    assert set(owners().values()) == {"Inbox", "Archive"}
    assert len(owners()) == 26


def test_export_that_lies_beside_keeps_what_its_source_has_no_more(moved_mail):
    call("history", "export", "kept.jsonl")
    call("import", "jsonl", "kept.jsonl")
    prune("mbox", "Inbox")
    assert owners()["D"] == "kept.jsonl"
    call("forget", "--source", f"jsonl:{moved_mail / 'kept.jsonl'}", "--yes")
    assert outputs() == ["A", "B", "C"]


def test_renamed_task_of_two_boxes_is_pruned_by_its_new_name(moved_mail):
    call("tasks", "rename", "email_subject", "subject", "--yes")
    prune("mbox", "Inbox", "--task", "subject")
    assert owners() == {"A": "Inbox", "B": "Archive", "C": "Archive"}


def test_box_that_another_program_imports_while_the_question_stands_keeps_its_mail(
    moved_mail, monkeypatch
):
    question = erasing.question

    def meanwhile(*given, **options):
        imported(moved_mail / "Sent", "D")
        return question(*given, **options)

    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    monkeypatch.setattr(erasing, "question", meanwhile)
    told = call("import", "mbox", "Inbox", "--prune", text="y\n")
    assert "Nothing to erase: all you have of" in told.stdout
    assert owners() == {"A": "Inbox", "B": "Archive", "C": "Archive", "D": "Sent"}


def test_mail_of_before_others_were_remembered_goes_with_a_word(moved_mail):
    with Store.open(find_paths().user_file("me")) as store:
        store._db.connection.execute("DELETE FROM holders")
        store._db.connection.execute("INSERT INTO meta VALUES ('holders', 99)")
    told = call("import", "mbox", "Inbox", "--prune", "--dry-run")
    assert "Would be forgotten: 2 records" in told.stdout
    assert "2 records of these came by an earlier release" in told.stderr
    imported(moved_mail / "Archive")
    told = call("import", "mbox", "Inbox", "--prune", "--dry-run")
    assert "1 record of these came by an earlier release" in told.stderr


def test_forget_of_one_box_erases_what_another_has_and_says_what_brings_it_back(moved_mail):
    inbox, archive = (f"mbox:{moved_mail / name}" for name in ("Inbox", "Archive"))
    told = call("forget", "--source", inbox, "--yes")
    assert outputs() == ["C"]
    assert f"Importing {archive}, {inbox} again brings them back" in told.stderr


def test_forget_of_a_box_tells_what_stays_as_others_brought_it(moved_mail):
    archive = f"mbox:{moved_mail / 'Archive'}"
    told = call("forget", "--source", archive, "--yes")
    assert "1 record of it came from other sources first: it stays, as theirs." in told.stderr
    assert outputs() == ["A", "B", "D"]
    prune("mbox", "Inbox")
    assert outputs() == ["A"], "it is forgotten that the archive has it"


def chats(name, *answers, day, last=0):
    """Write an export of a day; ``last`` is when its first chat was asked.

    The first letter of an answer names its chat.
    """
    items = [
        conversation(
            message("q", "user", f"Q{answer[0]}", create_time=last if place == 0 else 5.5),
            message("a", "assistant", answer),
            name=answer[0],
        )
        for place, answer in enumerate(answers)
    ]
    Path(name).write_text(json.dumps(items))
    os.utime(name, (day, day))


@pytest.fixture
def two_exports(tmp_path):
    """Import an export of a day, and write a later one, of which two chats were deleted."""
    chats("jan.json", *"ABCDEF", day=1, last=50)
    call("import", "chatgpt", "jan.json")
    chats("feb.json", *"GABCD", day=2, last=100)
    return tmp_path


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_chat_deleted_before_a_later_export_goes_with_it(two_exports, monkeypatch, first, there):
    jan = two_exports / "jan.json"
    if first:  # and looked at again, once the older one was imported
        call("import", "chatgpt", "feb.json")
    elif not there:
        jan.unlink()
    monkeypatch.setattr("hydra_edge.cli.output.is_terminal", lambda _: True)
    payload = loaded("import", "chatgpt", "feb.json", "--prune", "--dry-run", "--json")["pruned"]
    assert (payload["records"], payload["earlier_exports"]) == (2, {f"chatgpt:{jan}": 2})
    told = call("import", "chatgpt", "feb.json", "--prune", text="y\n")
    assert f"Of these, 2 from chatgpt:{jan}, an earlier export" in told.stderr
    assert "Erase 2 records no longer in" in told.stderr
    assert outputs() == [*"ABCDG"]


def of_another_account():
    chats("feb.json", *"GABXY", day=2, last=100)


def without_a_later_chat():
    chats("feb.json", *"ABCD", day=2, last=5)
    chats("jan.json", *"ABCDEF", day=1, last=5)


def written_earlier():
    os.utime("feb.json", (0, 0))


@pytest.mark.parametrize("doubt", [of_another_account, without_a_later_chat, written_earlier])
@pytest.mark.usefixtures("two_exports")
def test_export_that_may_be_no_later_one_leaves_the_other_alone(doubt):
    doubt()
    prune("chatgpt", "feb.json")
    assert {"E", "F"} <= {*outputs()}


@pytest.mark.parametrize(("kind", "is_later"), [("chatgpt", True), ("claude", False)])
def test_only_exports_of_all_there_is_tell_what_an_earlier_one_has_too_much(
    two_exports, kind, is_later
):
    jan, feb = (f"{kind}:{two_exports / name}" for name in ("jan.json", "feb.json"))
    assert (is_later_export(jan, feb), is_later_export(feb, jan)) == (is_later, False)


@pytest.mark.usefixtures("two_exports")
def test_older_export_keeps_nothing_that_the_later_one_has_no_more():
    """The earlier one was imported last, and holds what the later one had brought."""
    call("forget", "--all", "--yes")
    chats("new.json", *"GABCDEF", day=2, last=100)
    call("import", "chatgpt", "new.json")
    call("import", "chatgpt", "jan.json")
    chats("new.json", *"GABCD", day=3, last=100)
    prune("chatgpt", "new.json")
    assert outputs() == [*"ABCDG"]


def test_other_answer_of_an_older_export_stays_beside_that_of_the_later_one():
    chats("feb.json", "G", "A, edited", *"BCD", day=2, last=100)
    call("import", "chatgpt", "feb.json")
    chats("jan.json", *"ABCDEF", day=1, last=50)
    call("import", "chatgpt", "jan.json")
    prune("chatgpt", "feb.json")
    assert outputs() == ["A", "A, edited", *"BCDG"]


@pytest.mark.usefixtures("two_exports")
def test_pruned_older_export_leaves_its_chats_to_the_later_one():
    call("import", "chatgpt", "feb.json")
    chats("jan.json", *"ABEF", day=1, last=50)
    prune("chatgpt", "jan.json")
    assert {name: file for name, file in owners().items() if name in "CD"} == {
        "C": "feb.json", "D": "feb.json"
    }  # fmt: skip


def test_mail_found_in_another_box_since_the_reading_began_stays_remembered(
    moved_mail, monkeypatch
):
    box(moved_mail / "Archive", "C")
    with monkeypatch.context() as patch:
        patch.setattr("hydra_edge.leftovers.time.time", lambda: 1.6e9)
        prune("mbox", "Archive")
    prune("mbox", "Inbox")
    assert owners() == {"A": "Inbox", "B": "Archive", "C": "Archive"}


def test_notes_of_a_folder_that_is_empty_now_stay_remembered(tmp_path):
    for vault in ("vault", "copy"):
        (tmp_path / vault / "work").mkdir(parents=True)
        for name in ("a.md", "work/b.md"):
            (tmp_path / vault / name).write_text(f"# {name}\n\nText of {name}.\n")
        call("import", "markdown", vault)
    (tmp_path / "copy/work/b.md").unlink()
    prune("markdown", "copy")
    (tmp_path / "vault/work/b.md").unlink()
    (tmp_path / "vault/work").rmdir()
    prune("markdown", "vault")
    assert owners() == {"a.md": "vault", "work/b.md": "copy"}
