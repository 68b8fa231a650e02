from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import ImportLog, read_markdown
from hydra_edge.importers.markdown import parse_note
from hydra_edge.records import AssumedTime


def read(folder: Path, **options):
    log = ImportLog()
    return list(read_markdown(folder, log, **options)), log


def note(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (1000, 1000))
    return path


def test_note_with_front_matter_becomes_text_and_title(tmp_path):
    note(
        tmp_path,
        "sub/a.md",
        '---\ntitle: "Über 日本: 🗾"\ndate: 1970-01-02\nprivate: yes\nother: [x\n---\n\n'
        "The text.\n",
    )
    [record], log = read(tmp_path)
    assert (record.input, record.output) == ("The text.", "Über 日本: 🗾")
    assert (record.id, record.time, record.private) == ("sub/a.md", 86400.0, True)
    assert (record.task, record.source) == ("note_title", f"markdown:{tmp_path}")
    assert (log.read, log.done, log.total, log.unit) == (1, 1, 1, "notes")


def test_note_without_date_has_the_time_of_its_last_change(tmp_path):
    note(tmp_path, "a.md", "# T\ntext")
    note(tmp_path, "b.md", "---\ndate: next week\n---\n# T\ntext")
    assert [record.time for record in read(tmp_path)[0]] == [1000.0, 1000.0]
    note(tmp_path, "c.md", "---\ndate: 1970-01-01\n---\n# T\ntext")
    assumed = [isinstance(record.time, AssumedTime) for record in read(tmp_path)[0]]
    assert assumed == [True, True, False]


def test_notes_read_twice_give_identical_records_in_path_order(tmp_path):
    for name in ("b.md", "a/z.markdown", "a.MD"):
        note(tmp_path, name, f"# {name}\ntext")
    records, _ = read(tmp_path)
    assert [record.id for record in records] == ["a/z.markdown", "a.MD", "b.md"]
    assert read(tmp_path)[0] == records


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        ("intro\n\n## Head ##\n\nrest", "Head", "intro\n\n\nrest"),
        ("Head\n====\nrest", "Head", "rest"),
        ("```sh\n# comment\n```\n# Head\nrest", "Head", "```sh\n# comment\n```\nrest"),
        ("~~~~\n```\n# x\n~~~\n~~~~\n# Head", "Head", "~~~~\n```\n# x\n~~~\n~~~~"),
        ("#tag\n#\n# Head\nrest", "Head", "#tag\n#\nrest"),
        ("---\ntitle: T\n---\n# T\nrest", "T", "rest"),
        ("---\ntitle: T\n---\n# Other\nrest", "T", "# Other\nrest"),
        ("---\ntitle:\n---\n# Head\nrest", "Head", "rest"),
        ("---\nnot closed\n# Head\nrest", "Head", "---\nnot closed\nrest"),
        ("a paragraph\nof lines\n---\nrest", "", "a paragraph\nof lines\n---\nrest"),
        ("- item\n---\nrest", "", "- item\n---\nrest"),
        ("text", "", "text"),
    ],
)
def test_note_title_is_taken_out_of_the_text(text, title, body):
    found = parse_note(text)
    assert (found.title, found.text) == (title, body)


def test_note_named_in_words_has_its_name_as_title(tmp_path):
    for name in ("my-note.md", "a b.md", "2024-01-02.md", "word.md"):
        note(tmp_path, name, "text")
    records, log = read(tmp_path)
    assert [record.output for record in records] == ["a b", "my-note"]
    assert log.skipped == {"no title": 2}


@pytest.mark.parametrize(
    "front",
    ["private: true", "tags: [a, Private]", "tags: a, private", "tags:\n  - a\n  - '#private'",
     "private: false\ntags: private", "private:true", "'Private' : yes", "private:\n  true",
     "private: true # not yet", "extra:\n  private: true", "private = true",
     "params: {private: true}", "{title: x, private: true}", "{'private': yes, title: x}"],
)  # fmt: skip
def test_note_can_mark_itself_private(tmp_path, front):
    note(tmp_path, "a.md", f"---\n{front}\n---\n# T\ntext")
    assert read(tmp_path)[0][0].private is True


@pytest.mark.parametrize(
    "front",
    ["private = true", '"private" = true # so', "tags = ['a', 'private']", "tags = 'a, private'",
     "[taxonomies]\ntags = ['private']", "[extra]\nprivate = true",
     "extra = {private = true}", "extra.private = true"],
)  # fmt: skip
def test_note_can_mark_itself_private_in_toml(tmp_path, front):
    note(tmp_path, "a.md", f"+++\ntitle = 'A  \"title\"'\ndate = 1970-01-02\n{front}\n+++\ntext")
    [record], _ = read(tmp_path)
    assert (record.private, record.input, record.output) == (True, "text", 'A "title"')
    assert record.time == 86400.0


def test_note_front_matter_that_is_toml_and_marks_nothing_is_public(tmp_path):
    note(tmp_path, "a.md", "+++\nprivate = false\ndate = 1970-01-02T00:00:01Z\n+++\n# T\ntext")
    [record], _ = read(tmp_path)
    assert (record.private, record.output, record.time) == (False, "T", 86401.0)


@pytest.mark.parametrize(
    "text",
    ["---\nprivate\n---\n", "---\nprivate true\n---\n", "---\nprivate: >\n  true\n---\n",
     "---\nprivate: false\nextra:\n  private: so so\n---\n", "+++\nprivate = tru\n+++\n",
     "+++\nprivate = [true]\n+++\n", "+++\nprivate = true\n", "+++\na = " + "[" * 5000 + "\n+++\n",
     "+++\n" + "a." * 20_000 + "a = 1\n+++\n"],
)  # fmt: skip
def test_note_whose_mark_cannot_be_read_is_left_out(tmp_path, text):
    note(tmp_path, "a.md", text + "# T\ntext")
    note(tmp_path, "b.md", "# T\nprivate\n+++\n")
    records, log = read(tmp_path)
    assert [record.id for record in records] == ["b.md"]
    assert log.bad_total == 1
    assert "private is" in log.bad[0].reason or "front matter" in log.bad[0].reason


@pytest.mark.parametrize("value", [">", "|", ">-", "|2+"])
def test_note_title_in_the_lines_below_is_not_its_marker(value):
    assert parse_note(f"---\ntitle: {value}\n  Words\n---\n# Head\nrest").title == "Head"
    assert parse_note(f"---\ntitle: a {value}\n---\nrest").title == f"a {value}"


def test_note_private_option_marks_all(tmp_path):
    note(tmp_path, "a.md", "---\nprivate: false\n---\n# T\ntext")
    assert read(tmp_path)[0][0].private is False
    assert read(tmp_path, private=True)[0][0].private is True


def test_notes_that_are_bad_or_empty_do_not_cost_the_others(tmp_path):
    note(tmp_path, "1.md", b"# T\n\xff")
    note(tmp_path, "2.md", "---\nprivate: perhaps\n---\n# T\ntext")
    note(tmp_path, "3.md", "# Only a heading\n")
    note(tmp_path, "4.md", "\ufeff# Good\r\n\r\ntext\r\n")
    records, log = read(tmp_path)
    assert [(record.output, record.input) for record in records] == [("Good", "text")]
    assert [bad.number for bad in log.bad] == [1, 2]
    assert log.bad[0].reason == "1.md: not UTF-8"
    assert "private" in log.bad[1].reason
    assert log.skipped == {"empty note": 1}


def test_note_of_absurd_size_is_reported_unread(tmp_path, monkeypatch):
    monkeypatch.setattr("hydra_edge.importers.markdown.MAX_NOTE_BYTES", 2**20)
    note(tmp_path, "a.md", "# T\n" + "x" * 2**20)
    note(tmp_path, "b.md", "# T\n" + "字" * 300_000)
    records, log = read(tmp_path)
    assert [record.id for record in records] == ["b.md"]
    assert log.bad[0].reason == "a.md: larger than 1 MiB"


def test_hidden_and_other_files_are_not_notes(tmp_path):
    for name in (".obsidian/a.md", ".hidden.md", "a.txt", "md"):
        note(tmp_path, name, "# T\ntext")
    assert read(tmp_path)[1].total == 0


def test_note_whose_path_cannot_be_an_id_has_a_stable_one(tmp_path):
    note(tmp_path, "/".join(["folder" * 8] * 5) + "/a.md", "# T\ntext")
    note(tmp_path, "line\nbreak.md", "# T\ntext")
    records, _ = read(tmp_path)
    assert [len(record.id) for record in records] == [32, 32]
    assert read(tmp_path)[0] == records


@pytest.mark.parametrize("name", ["missing", "file.md"])
def test_notes_need_a_folder(tmp_path, name):
    note(tmp_path, "file.md", "# T\ntext")
    with pytest.raises(ImportFormatError, match=r"is not a folder\. Expected a folder of Markdown"):
        read(tmp_path / name)


@settings(deadline=None)  # a loaded machine is no failure
@given(st.text(st.sampled_from("#-=~` \n:tagsprivate")) | st.text())
def test_note_of_any_text_is_taken_apart(text):
    found = parse_note(text)
    assert found.title == "" or found.title in text


def test_note_that_cannot_be_read_is_named_as_it_is(tmp_path):
    note(tmp_path, "Über\u202e.md", b"\xff")
    assert read(tmp_path)[1].bad[0].reason == "Über\\u202e.md: not UTF-8"
