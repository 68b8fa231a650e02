"""Exports of chats, from the command line."""

import json
import os
from pathlib import Path

import cli_runner
import pytest
from cli_runner import call, loaded, records
from test_importers_chatgpt import conversation as chatgpt_conversation
from test_importers_chatgpt import message as chatgpt_message
from test_importers_claude import chain, conversation, message
from test_importers_slack import ADA, BOB, DAY, said, stamp
from test_importers_slack import write as write_slack

_own_folder = cli_runner.own_folder


def write(name, answers, *, day, second=9):
    """Write a Claude export of a day, a chat for each answer; the first has the latest message."""
    chats = []
    for place, (letter, answer) in enumerate(answers.items()):
        time = f"1970-01-01T00:00:{second if place == 0 else 1:02}Z"
        asked = message("q", "human", f"Q{letter}", created_at=time)
        said = message(f"a{day}", "assistant", answer, created_at=time)
        chats.append(conversation(*chain(asked, said), name=letter))
    Path(name).write_text(json.dumps(chats))
    os.utime(name, (day, day))


def found():
    return {record.id: record.output for record in records()}


def test_claude_export_is_imported_privately_and_again_changes_nothing():
    write("jan.json", {"A": "one", "B": "two"}, day=1)
    first = loaded("import", "claude", "jan.json", "--json")

    assert (first["added"], first["private"]) == (2, 2)
    assert all(record.private for record in records())
    assert "0 added, 0 updated, 2 unchanged" in call("import", "claude", "jan.json").stdout


def test_claude_export_is_public_where_that_is_said_and_of_the_task_given():
    write("jan.json", {"A": "one"}, day=1)
    call("import", "claude", "jan.json", "--public", "--task", "notes")

    assert [(record.private, record.task) for record in records()] == [(False, "notes")]


def test_claude_dry_run_stores_nothing(home):
    write("jan.json", {"A": "one"}, day=1)

    assert "Would read 1 record" in call("import", "claude", "jan.json", "--dry-run").stdout
    assert not home.exists()


@pytest.mark.parametrize("there", [True, False])
def test_claude_answer_given_again_is_updated_by_a_later_export(there):
    write("jan.json", {"A": "one", "B": "two"}, day=1)
    call("import", "claude", "jan.json")
    if not there:
        Path("jan.json").unlink()
    write("feb.json", {"A": "one", "B": "otherwise", "C": "three"}, day=2)
    payload = loaded("import", "claude", "feb.json", "--json")

    assert (payload["added"], payload["updated"]) == (1, 1)
    assert found() == {"A:q": "one", "B:q": "otherwise", "C:q": "three"}


@pytest.mark.parametrize(("file", "kept"), [("jan.json", "ABD"), ("feb.json", "ABCD")])
def test_claude_chat_that_is_gone_goes_if_its_own_file_is_pruned(file, kept):
    """A later file may be another part of an export, or of chosen months."""
    write("jan.json", dict.fromkeys("ABC", "one"), day=1, second=5)
    call("import", "claude", "jan.json")
    write(file, dict.fromkeys("DAB", "one"), day=2, second=9)
    told = call("import", "claude", file, "--prune", "--yes")

    assert told.exit_code == 0, told.output
    assert found().keys() == {f"{letter}:q" for letter in kept}


def test_claude_question_asked_otherwise_keeps_the_one_it_was_before_when_pruned():
    asked = chain(message("q", "human", "Q"), message("a", "assistant", "A"))
    Path("jan.json").write_text(json.dumps([conversation(*asked)]))
    call("import", "claude", "jan.json")
    again = chain(message("r", "human", "R"), message("b", "assistant", "B"))
    Path("jan.json").write_text(json.dumps([conversation(*asked, *again)]))
    call("import", "claude", "jan.json", "--prune", "--yes")

    assert found() == {"c:q": "A", "c:r": "B"}


def test_export_of_the_other_service_is_refused_with_the_command_for_it():
    write("claude.json", {"A": "one"}, day=1)
    asked = (chatgpt_message("q", "user", "Q"), chatgpt_message("a", "assistant", "A"))
    Path("chatgpt.json").write_text(json.dumps([chatgpt_conversation(*asked)]))

    for kind, other in (("claude", "chatgpt"), ("chatgpt", "claude")):
        told = call("import", kind, f"{other}.json")
        assert told.exit_code == 1
        assert f"hydra-edge import {other} {other}.json" in told.stderr


def test_claude_messages_left_out_are_told():
    asked = message("q", "human", "Q", files=[{"file_name": "a.png"}])
    said = message("a", "assistant", "A")
    Path("jan.json").write_text(json.dumps([conversation(*chain(asked, said)), 7]))
    told = call("import", "claude", "jan.json")

    assert "1 skipped (1 attached file)" in told.stdout
    assert "conversation 2: the item is a number; expected a conversation" in told.stderr


@pytest.fixture
def workspace():
    rows = [said(BOB, "Q", 0), said(ADA, "A", 1), said(BOB, "R", 2)]
    write_slack("e.zip", {f"general/{DAY}": rows})


@pytest.mark.usefixtures("workspace")
def test_slack_replies_are_imported_privately_and_again_change_nothing():
    payload = loaded("import", "slack", "e.zip", "--me", "ada", "--json")

    assert (payload["added"], payload["private"]) == (1, 1)
    assert [(r.id, r.task) for r in records()] == [(f"C1:{stamp(1)}", "message_reply")]
    again = call("import", "slack", "e.zip", "--me", "ada")
    assert "0 added, 0 updated, 1 unchanged" in again.stdout
    assert "a new task" not in again.stderr


@pytest.mark.usefixtures("workspace")
def test_slack_wants_to_be_told_who_is_meant():
    told = call("import", "slack", "e.zip")

    assert told.exit_code == 2
    assert "--me" in told.stderr


@pytest.mark.usefixtures("workspace")
def test_slack_pruned_as_somebody_else_s_keeps_what_was_one_s_own():
    call("import", "slack", "e.zip", "--me", "ada")
    call("import", "slack", "e.zip", "--me", "bob", "--prune", "--yes")

    assert {record.output for record in records()} == {"A", "R"}


@pytest.mark.usefixtures("workspace")
def test_slack_message_that_is_deleted_goes_if_pruned():
    call("import", "slack", "e.zip", "--me", "ada")
    write_slack("e.zip", {f"general/{DAY}": [said(BOB, "Q", 0), said(ADA, "B", 3)]})
    call("import", "slack", "e.zip", "--me", "ada", "--prune", "--yes")

    assert {record.output for record in records()} == {"B"}


@pytest.mark.usefixtures("workspace")
def test_slack_export_of_other_days_erases_nothing_of_an_earlier_one():
    call("import", "slack", "e.zip", "--me", "ada")
    write_slack("later.zip", {f"general/{DAY}": [said(BOB, "Q", 9), said(ADA, "B", 10)]})
    call("import", "slack", "later.zip", "--me", "ada", "--prune", "--yes")

    assert {record.output for record in records()} == {"A", "B"}


def test_slack_reply_that_was_edited_is_updated_by_a_later_export():
    for day, text in enumerate(("as it was", "edited"), 1):
        rows = [said(BOB, "Q", 0), said(ADA, text, 1)]
        write_slack(f"{day}.zip", {f"general/{DAY}": rows})
        os.utime(f"{day}.zip", (day, day))
        call("import", "slack", f"{day}.zip", "--me", "ada")

    assert [record.output for record in records()] == ["edited"]
