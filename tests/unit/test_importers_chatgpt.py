from __future__ import annotations

import json
import zipfile

import pytest

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, read_chatgpt


def message(name, role, text, **more):
    content = {"content_type": "text", "parts": [text]} if isinstance(text, str) else text
    return {"id": name, "author": {"role": role}, "content": content, "create_time": 5.5} | more


def conversation(*messages, name="c", **more):
    """Chain messages under an empty root, as the export does."""
    nodes = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    last = "root"
    for item in messages:
        nodes[item["id"]] = {"id": item["id"], "message": item, "parent": last, "children": []}
        nodes[last]["children"].append(item["id"])
        last = item["id"]
    return {"id": name, "create_time": 9, "current_node": last, "mapping": nodes} | more


def read(path, **options):
    log = ImportLog()
    return list(read_chatgpt(path, log, **options)), log


@pytest.fixture
def save(tmp_path):
    def write(*conversations):
        path = tmp_path / "conversations.json"
        path.write_text(json.dumps(conversations))
        return path

    return write


def test_chat_turns_become_question_and_answer(tmp_path):
    path = tmp_path / "export.zip"
    chat = conversation(
        message("q1", "user", "Hi 👋"),
        message("a1", "assistant", "שלום"),
        message("q2", "user", "More", create_time=None),
        message("a2", "assistant", "Sure:"),
        message("a3", "assistant", "more."),
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("chat.html", "x")
        archive.writestr("conversations.json", json.dumps([chat]))
    first, second = read(path)[0]
    assert (first.input, first.output, first.id, first.time) == ("Hi 👋", "שלום", "c:q1", 5.5)
    assert (second.input, second.output, second.time) == ("More", "Sure:\n\nmore.", 9.0)
    assert (first.private, first.task, first.source) == (True, "chat", f"chatgpt:{path}")
    assert read(path)[0] == [first, second]


def test_chat_turn_that_is_no_record_or_has_no_time_costs_the_others_nothing(save):
    turns = [
        (message(f"q{i}", "user", f"Q{i}"), message(f"a{i}", "assistant", f"A{i}"))
        for i in range(1, 5)
    ]
    turns[1][0]["create_time"] = 1_700_000_000_000  # milliseconds
    turns[2][0]["id"] = "x" * 300
    chat = conversation(*(one for turn in turns for one in turn))
    records, log = read(save(chat))
    assert [(r.id, r.time) for r in records] == [("c:q1", 5.5), ("c:q2", 9.0), ("c:q4", 5.5)]
    assert [bad.number for bad in log.bad] == [1]
    assert "id has 302 characters" in log.bad[0].reason
    records, log = read(save(chat | {"create_time": "last year"}))
    assert [(r.id, r.time) for r in records] == [("c:q1", 5.5), ("c:q2", None), ("c:q4", 5.5)]


def test_chat_bare_json_and_split_export_are_read(tmp_path, save):
    chat = conversation(message("q", "user", "Q"), message("a", "assistant", "A"))
    records, log = read(save(chat, chat | {"id": "d"}), private=False)
    assert [record.id for record in records] == ["c:q", "d:q"]
    assert records[0].private is False
    assert (log.total, log.done, log.unit) == (2, 2, "conversations")
    path = tmp_path / "split.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for n, name in ((1, "d"), (0, "c")):
            archive.writestr(f"out/conversations-00{n}.json", json.dumps([chat | {"id": name}]))
    assert [record.id for record in read(path)[0]] == ["c:q", "d:q"]


def test_chat_follows_the_branch_it_ended_on(save):
    chat = conversation(message("q", "user", "Q"), message("a", "assistant", "first try"))
    chat["mapping"]["b"] = {
        "id": "b", "parent": "q", "children": [],
        "message": message("b", "assistant", "second try"),
    }  # fmt: skip
    chat["mapping"]["q"]["children"].append("b")
    chat["current_node"] = "b"
    [record], _ = read(save(chat))
    assert record.output == "second try"


def test_chat_messages_of_no_use_are_counted(save):
    image = {"content_type": "multimodal_text", "parts": [{"asset": 1}, "what is it?"]}
    chat = conversation(
        message("s", "system", "rules"),
        message("early", "assistant", "unasked"),
        message("q0", "user", "unanswered"),
        message("q1", "user", "Q"),
        message("call", "assistant", "search()", recipient="browser"),
        message("t", "tool", "result"),
        message("code", "assistant", {"content_type": "code", "text": "x"}),
        message("a1", "assistant", "A"),
        message("empty", "assistant", " "),
        message("picture", "user", image),
        message("a2", "assistant", "a cat"),
        message("odd", "assistant", {"content_type": "text", "parts": [None]}),
    )
    records, log = read(save(chat))
    assert [(record.input, record.output) for record in records] == [("Q", "A")]
    assert log.skipped == {
        "system or tool message": 3,
        "answer to no plain question": 2,
        "question without an answer": 1,
        "message that is not plain text": 3,
        "empty message": 1,
    }


def test_chat_that_is_malformed_does_not_cost_the_others(save):
    good = conversation(message("q", "user", "Q"), message("a", "assistant", "A"))
    records, log = read(save(7, {"mapping": []}, good | {"current_node": "gone"}, good))
    assert [record.id for record in records] == ["c:q"]
    assert [bad.number for bad in log.bad] == [1, 2, 3]
    assert log.bad[0].reason == "the item is a number; expected a conversation"
    assert "no current_node" in log.bad[2].reason


def test_chat_without_ids_has_none(save):
    chat = conversation(message("q", "user", "Q"), message("a", "assistant", "A"), name=None)
    assert read(save(chat))[0][0].id == ""


def test_chat_given_a_claude_export_names_the_command_for_it(save):
    path = save({"uuid": "c", "chat_messages": []})
    with pytest.raises(ImportFormatError, match=f"is a Claude export.*import claude {path}"):
        read(path)


def test_chat_in_a_list_with_one_of_another_service_is_read(save):
    chat = conversation(message("q", "user", "Q"), message("a", "assistant", "A"))
    records, log = read(save({"uuid": "c", "chat_messages": []}, chat))
    assert [record.id for record in records] == ["c:q"]
    assert log.bad_total == 1


@pytest.mark.parametrize("content", ["{}", '"x"'])
def test_chat_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(ImportFormatError, match="Expected a list of conversations"):
        read(path)


def test_chat_zip_without_conversations_is_refused(tmp_path):
    path = tmp_path / "e.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deep/down/conversations.json", "[]")
    with pytest.raises(ImportFormatError, match=r"contains no conversations\.json"):
        read(path)


def test_chat_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ImportFormatError, match=r"cannot be read: No such file"):
        read(tmp_path / "missing.zip")
