from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, read_chatgpt, read_claude

ROOT = "00000000-0000-4000-8000-000000000000"
STAND_IN = "```\nThis block is not supported on your current device yet.\n```"


def text_block(text):
    return {"type": "text", "text": text, "citations": []}


def message(name, sender, text, /, **more):
    """Write a message as exports have it today, but for the parent."""
    blocks = [text_block(text)] if isinstance(text, str) else text
    return {
        "uuid": name, "sender": sender, "text": text if isinstance(text, str) else "",
        "content": blocks, "created_at": "1970-01-01T00:00:05.500000Z", "attachments": [],
        "files": [],
    } | more  # fmt: skip


def chain(*messages):
    """Give each message the one before as its parent."""
    parents = [ROOT, *(each["uuid"] for each in messages)]
    return [
        {"parent_message_uuid": parent} | each
        for parent, each in zip(parents, messages, strict=False)
    ]


def conversation(*messages, name="c", **more):
    found = {"uuid": name, "name": "A chat", "created_at": "1970-01-01T00:00:09Z"}
    return found | {"account": {"uuid": "me"}, "chat_messages": list(messages)} | more


def turn():
    return chain(message("q", "human", "Q"), message("a", "assistant", "A"))


def read(path, **options):
    log = ImportLog()
    return list(read_claude(path, log, **options)), log


@pytest.fixture
def save(tmp_path):
    def write(*conversations):
        path = tmp_path / "conversations.json"
        path.write_text(json.dumps(conversations))
        return path

    return write


def test_claude_turns_become_question_and_answer(tmp_path):
    path = tmp_path / "data-2026-01-31-batch-0000.zip"
    chat = conversation(
        *chain(
            message("q1", "human", "Hi 👋"),
            message("a1", "assistant", "שלום"),
            message("q2", "human", "More", created_at="some day"),
            message("a2", "assistant", "Sure:"),
            message("a3", "assistant", "more."),
        )
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.json", "[]")
        archive.writestr("projects.json", "[]")
        archive.writestr("conversations.json", json.dumps([chat]))
    first, second = read(path)[0]
    assert (first.input, first.output, first.id, first.time) == ("Hi 👋", "שלום", "c:q1", 5.5)
    assert (second.input, second.output, second.time) == ("More", "Sure:\n\nmore.", 9.0)
    assert (first.private, first.task, first.source) == (True, "chat", f"claude:{path}")
    assert read(path)[0] == [first, second]


def test_claude_messages_in_a_row_with_text_alone_are_read(save):
    """As the first exports had them."""
    rows = [
        {"uuid": "q", "sender": "human", "text": "Q", "created_at": "1970-01-01T00:00:07Z"},
        {"uuid": "a", "sender": "assistant", "text": "A", "created_at": "1970-01-01T00:00:06Z"},
        {"uuid": "r", "sender": "human", "text": "R"},
        {"uuid": "b", "sender": "assistant", "text": "B"},
    ]
    records, log = read(save(conversation(*rows)), private=False, task="notes")
    assert [(r.id, r.input, r.output) for r in records] == [("c:q", "Q", "A"), ("c:r", "R", "B")]
    assert [(r.time, r.private, r.task) for r in records] == [
        (7.0, False, "notes"), (9.0, False, "notes")
    ]  # fmt: skip
    assert (log.total, log.done, log.unit) == (1, 1, "conversations")


def test_claude_conversation_saved_by_itself_is_read(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(conversation(*turn())))
    assert [record.id for record in read(path)[0]] == ["c:q"]


def branches(**times):
    """Ask a question, answer it twice, and ask it otherwise: each message of its second."""
    rows = {
        "q": ("human", ROOT), "a": ("assistant", "q"), "b": ("assistant", "q"),
        "next": ("human", "b"), "c": ("assistant", "next"), "edited": ("human", ROOT),
        "d": ("assistant", "edited"),
    }  # fmt: skip
    return [
        message(name, sender, name.upper(), parent_message_uuid=parent,
                created_at=f"1970-01-01T00:00:{times.get(name, 0):02}Z")
        for name, (sender, parent) in rows.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("times", "expected", "others"),
    [
        ({"d": 9}, [("EDITED", "D")], 5),
        ({"c": 9}, [("Q", "B"), ("NEXT", "C")], 3),
        ({"a": 9}, [("Q", "A")], 5),
        ({}, [("EDITED", "D")], 5),
    ],
)
def test_claude_follows_the_branch_with_the_latest_message(save, times, expected, others):
    records, log = read(save(conversation(*branches(**times))))
    assert [(record.input, record.output) for record in records] == expected
    assert log.skipped == {"message of another branch": others}


def test_claude_follows_the_branch_it_says_it_ended_on(save):
    chat = conversation(*branches(d=9), current_leaf_message_uuid="a")
    assert [r.output for r in read(save(chat))[0]] == ["A"]


def test_claude_questions_of_every_branch_are_there(save):
    log = ImportLog(held=set())
    list(read_claude(save(conversation(*branches())), log))
    assert log.held is not None
    assert {"c:q", "c:next", "c:edited"} <= log.held


def test_claude_messages_that_go_in_circles_end(save):
    circle = [
        message("q", "human", "Q", parent_message_uuid="a"),
        message("a", "assistant", "A", parent_message_uuid="q"),
    ]
    assert [r.output for r in read(save(conversation(*circle)))[0]] == ["A"]


def test_claude_answer_whose_question_is_missing_is_nobody_elses(save):
    rows = chain(
        message("q", "human", "Q"),
        message("a", "assistant", "A"),
        message("gone", "human", "never written"),
        message("b", "assistant", "B"),
    )
    records, log = read(save(conversation(*rows[:2], rows[3])))
    assert [(record.input, record.output) for record in records] == [("Q", "A")]
    assert log.skipped == {"answer to no plain question": 1}


def test_claude_thoughts_tools_and_files_are_left_out_and_counted(save):
    blocks = [
        {"type": "thinking", "thinking": "She wants tea."},
        text_block("I look. "),
        text_block("Wait.\n"),
        {"type": "tool_use", "name": "web_search", "input": {"q": "tea"}},
        {"type": "tool_result", "content": [text_block("not mine")]},
        text_block("\n  Tea is green."),
        {"type": "token_budget"},
    ]
    attached = {"file_name": "a.txt", "extracted_content": "not mine either"}
    chat = conversation(
        *chain(
            message("q", "human", "Q", attachments=[attached], files=[{"file_name": "b.png"}]),
            message("a", "assistant", blocks, text=f"She wants tea.I look. Wait.\n{STAND_IN}"),
        )
    )
    [record], log = read(save(chat))
    assert (record.input, record.output) == ("Q", "I look. Wait.\n\n  Tea is green.")
    assert log.skipped == {
        "attached file": 2,
        "thought": 1,
        "use of a tool": 2,
        "block that is not text": 1,
    }


@pytest.mark.parametrize(
    ("content", "text", "expected"),
    [
        ([], f"before\n{STAND_IN}\nafter", "before\n\nafter"),
        (None, f"{STAND_IN}", None),
        ([{"type": "tool_use"}], f"\n{STAND_IN}\n\nall the same", "all the same"),
        ([text_block("")], "here", "here"),
        ([{"type": "thinking", "thinking": "hm"}], "hm", None),
        ([text_block("blocks")], "hm.blocks", "blocks"),
    ],
)
def test_claude_text_is_taken_where_there_are_no_blocks_of_it(save, content, text, expected):
    answer = message("a", "assistant", content, text=text)
    records, log = read(save(conversation(message("q", "human", "Q"), answer)))
    assert [record.output for record in records] == ([] if expected is None else [expected])
    assert log.skipped["use of a tool"] == (STAND_IN in text)
    assert log.skipped["empty message"] == (expected is None)


def test_claude_messages_of_no_use_are_counted(save):
    chat = conversation(
        *chain(
            message("early", "assistant", "unasked"),
            message("q0", "human", "unanswered"),
            message("q1", "human", "Q"),
            message("a1", "assistant", "A"),
            message("s", "system", "rules"),
            message("n", "assistant", None, text=7),
            message("pasted", "human", "", attachments=[{"extracted_content": "long"}]),
            message("a2", "assistant", "about what was pasted"),
        )
    )
    records, log = read(save(chat))
    assert [(record.input, record.output) for record in records] == [("Q", "A")]
    assert log.skipped == {
        "answer to no plain question": 2,
        "question without an answer": 1,
        "system or tool message": 1,
        "message that is not plain text": 1,
        "attached file": 1,
        "empty message": 1,
    }


def test_claude_chat_that_is_malformed_does_not_cost_the_others(save):
    good = conversation(*turn())
    records, log = read(save(7, good | {"chat_messages": {}}, {}, conversation(), good))
    assert [record.id for record in records] == ["c:q"]
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (1, "the item is a number; expected a conversation"),
        (2, "chat_messages is an object; expected a list of messages"),
        (3, "chat_messages is null; expected a list of messages"),
    ]


def test_claude_message_that_is_malformed_ends_the_turn_it_may_belong_to(save):
    rows = [
        {"uuid": "q", "sender": "human", "text": "Q"},
        {"uuid": "a", "sender": "assistant", "text": "A"},
        7,
        {"uuid": "b", "sender": "assistant", "text": "to whatever that was"},
    ]
    [record], log = read(save(conversation(*rows)))
    assert record.output == "A"
    assert [(bad.number, bad.reason) for bad in log.bad] == [(1, "its message 3 is no object")]
    assert log.skipped == {"answer to no plain question": 1}


@pytest.mark.parametrize("value", [7, None, [], {"a": 1}, "x" * 300, True])
def test_claude_fields_of_another_kind_cost_a_conversation_at_most(save, value):
    odd = [
        conversation(*turn(), name=value),
        conversation(*turn(), created_at=value, current_leaf_message_uuid=value),
        *(
            conversation(turn()[0] | {field: value}, turn()[1])
            for field in (*turn()[0], "parent_message_uuid")
        ),
    ]
    assert read(save(*odd, conversation(*turn(), name="good")))[0][-1].id == "good:q"


def test_claude_chat_without_ids_has_none(save):
    assert read(save(conversation(*turn(), name=None)))[0][0].id == ""


CHATGPT = {"id": "c", "mapping": {}, "current_node": "a"}


@pytest.mark.parametrize("packed", [True, False])
def test_claude_given_a_chatgpt_export_names_the_command_for_it(tmp_path, packed):
    path = tmp_path / "my export.zip"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("conversations.json", json.dumps([CHATGPT]))
    else:
        path.write_text(json.dumps([CHATGPT]))
    with pytest.raises(ImportFormatError, match=f"import chatgpt '{path}'"):
        read(path)


@pytest.mark.parametrize("reader", [read_chatgpt, read_claude])
def test_chats_given_a_slack_export_name_the_command_for_it(tmp_path, reader):
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("users.json", "[]")
        archive.writestr("general/2026-01-31.json", "[]")
    with pytest.raises(ImportFormatError, match=f"is a Slack export.*slack {path} --me NAME"):
        next(reader(path, ImportLog()))


@pytest.mark.parametrize("content", ["{}", '"x"'])
def test_claude_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ImportFormatError, match=r"list of conversations, as in a Claude export"):
        read(path)


def test_claude_zip_without_conversations_is_refused(tmp_path):
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("projects.json", "[]")
    with pytest.raises(ImportFormatError, match=r"no conversations\.json.*claude\.ai"):
        read(path)


SENDERS = st.sampled_from(["human", "assistant"])


@given(st.lists(st.tuples(SENDERS, st.integers(-1, 12), st.integers(0, 5)), max_size=12))
def test_claude_answers_go_to_the_question_they_follow_and_none_is_lost(tmp_path_factory, rows):
    parents = [min(parent, place - 1) for place, (_, parent, _) in enumerate(rows)]
    messages = [
        message(f"m{place}", sender, f"text {place}", created_at=f"1970-01-01T00:00:0{second}Z",
                parent_message_uuid=f"m{parents[place]}" if parents[place] >= 0 else ROOT)
        for place, (sender, _, second) in enumerate(rows)
    ]  # fmt: skip
    path = Path(tmp_path_factory.getbasetemp()) / "property.json"
    path.write_text(json.dumps([conversation(*messages)]))
    records, log = read(path)

    answers = {text: r.id for r in records for text in r.output.split("\n\n")}
    assert sum(r.output.count("text") for r in records) == len(answers)
    for text, question in answers.items():
        place = int(text.removeprefix("text "))
        while rows[place][0] == "assistant":
            place = parents[place]
        assert question == f"c:m{place}"
    used = len(records) + len(answers)
    assert used + log.skipped.total() == len(rows)
    assert not log.bad_total
    if rows:
        ends = set(range(len(rows))) - set(parents)
        last = max(ends, key=lambda place: (rows[place][2], place))
        on_it = {last}
        while (last := parents[last]) >= 0:
            on_it.add(last)
        assert {int(text.removeprefix("text ")) for text in answers} <= on_it
        assert log.skipped["message of another branch"] == len(rows) - len(on_it)
