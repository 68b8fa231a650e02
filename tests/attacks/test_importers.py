"""Hostile sources: they may cost themselves, never the caller."""

from __future__ import annotations

import io
import json
import mailbox
import os
import struct
import zipfile
from pathlib import Path

import pytest

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers import (
    ImportLog,
    mbox,
    read_chatgpt,
    read_claude,
    read_csv,
    read_git,
    read_jsonl,
    read_lamp,
    read_markdown,
    read_mbox,
    read_slack,
    table,
)

DEEP = b"[" * 200_000
GOOD = b'{"input": "in", "output": "out"}\n'


def test_jsonl_line_nested_too_deeply_costs_itself_only(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_bytes(GOOD + b'{"input": ' + DEEP + b"\n" + GOOD)
    log = ImportLog()
    assert len(list(read_jsonl(path, log))) == 2
    assert [(bad.number, bad.reason) for bad in log.bad] == [
        (2, "not usable JSON: nested too deeply")
    ]


def test_jsonl_line_without_end_is_never_held_in_memory():
    class Endless(io.RawIOBase):
        """One line of 70 MiB, then a good one; remembers the largest read."""

        left = 70 * 2**20
        tail = b"\n" + GOOD

        def readable(self):
            return True

        def readinto(self, buffer):
            if self.left:
                size = min(len(buffer), self.left)
                buffer[:size] = b"x" * size
                self.left -= size
                return size
            size = min(len(buffer), len(self.tail))
            buffer[:size], self.tail = self.tail[:size], self.tail[size:]
            return size

    log = ImportLog()
    stream = io.TextIOWrapper(io.BufferedReader(Endless(), 1 << 20))
    assert len(list(read_jsonl(stream, log))) == 1
    assert [(bad.number, bad.reason) for bad in log.bad] == [(1, "longer than 64 MiB")]


@pytest.mark.parametrize("last", ["good,row\n", '"x"y,z\n'])  # to the end, or to an error there
def test_csv_quotes_misplaced_in_every_line_are_read_a_few_times_each(tmp_path, monkeypatch, last):
    given = 0
    as_it_was = table._RowLines.__next__

    def counted(self):
        nonlocal given
        line = as_it_was(self)
        given += 1
        return line

    monkeypatch.setattr(table._RowLines, "__next__", counted)
    bad = 8000
    path = tmp_path / "h.csv"
    path.write_text("input,output\nfirst,row\n" + 'a","c\n' * bad + last)
    log = ImportLog()
    records = [(r.input, r.output) for r in read_csv(path, log)]
    good = last.startswith("good")
    assert records == [("first", "row"), ("good", "row")][: 1 + good]
    assert log.bad_total == bad + (not good)
    assert [bad.number for bad in log.bad] == list(range(3, 103))
    assert given < 20 * bad


def test_csv_rows_of_many_lines_are_whole_behind_misplaced_quotes(tmp_path):
    path = tmp_path / "h.csv"
    rows = 'a","c\n"several\nlines","b"\n' * 1000
    path.write_text("input,output\n" + rows)
    log = ImportLog()
    records = list(read_csv(path, log))
    assert {record.input for record in records} == {"several\nlines"}
    assert (len(records), log.bad_total) == (1000, 1000)


def test_bad_line_reasons_cannot_drive_a_terminal(tmp_path):
    path = tmp_path / "h.jsonl"
    evil = "\x1b[2J\u202e\r"
    path.write_text(
        "".join(json.dumps({"input": "a", "output": "b", key: evil}) + "\n"
                for key in ("id", "time", "private"))
    )  # fmt: skip
    log = ImportLog()
    list(read_jsonl(path, log))
    assert log.bad_total == 3
    assert all(bad.reason.isprintable() for bad in log.bad)


CHATS = pytest.mark.parametrize("read", [read_chatgpt, read_claude])


@pytest.mark.parametrize(
    "read", [read_chatgpt, read_claude, lambda path, log: read_lamp(path, None, log)]
)
def test_json_source_nested_too_deeply_is_refused(tmp_path, read):
    path = tmp_path / "x.json"
    path.write_bytes(DEEP)
    with pytest.raises(ImportFormatError, match="nested too deeply"):
        next(read(path, ImportLog()))


def zip_of(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", content)
    return path


@CHATS
def test_zip_bomb_is_refused_by_its_declared_size(tmp_path, read):
    path = zip_of(tmp_path / "bomb.zip", b" " * 20_000_000 + b"[]")
    assert path.stat().st_size < 30_000
    with pytest.raises(ImportFormatError, match="unpacks to more than 1000000 bytes"):
        next(read(path, ImportLog(), max_bytes=10**6))


@CHATS
def test_json_beyond_the_limit_is_not_read(tmp_path, read):
    path = tmp_path / "c.json"
    path.write_bytes(b" " * 2000 + b"[]")
    with pytest.raises(ImportFormatError, match="more than 1000 bytes"):
        next(read(path, ImportLog(), max_bytes=1000))


@CHATS
def test_zip_bomb_that_lies_about_its_size_is_refused(tmp_path, read):
    path = zip_of(tmp_path / "liar.zip", b" " * 20_000_000 + b"[]")
    true_size = struct.pack("<I", 20_000_002)
    data = path.read_bytes()
    assert data.count(true_size) == 2
    path.write_bytes(data.replace(true_size, struct.pack("<I", 100)))
    with pytest.raises(ImportFormatError, match=r"cannot be unpacked|unpacks to more"):
        next(read(path, ImportLog(), max_bytes=10**6))


def test_slack_zip_that_lies_about_the_size_of_a_day_is_refused(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("users.json", '[{"id": "U1", "name": "ada"}]')
        archive.writestr("../../general/2026-01-31.json", b" " * 20_000_000 + b"[]")
    data, true_size = path.read_bytes(), struct.pack("<I", 20_000_002)
    path.write_bytes(data.replace(true_size, struct.pack("<I", 100)))
    with pytest.raises(ImportFormatError, match=r"cannot be unpacked|unpacks to more"):
        next(read_slack(path, ImportLog(), me="ada", max_bytes=10**6))
    assert [each.name for each in tmp_path.iterdir()] == ["liar.zip"]


@CHATS
def test_zip_that_names_paths_outside_writes_nothing(tmp_path, read):
    path = tmp_path / "inner" / "t.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../conversations.json", "[7]")
        archive.writestr("../../evil.md", "# T")
    before = sorted(tmp_path.rglob("*"))
    log = ImportLog()
    assert list(read(path, log)) == []
    assert log.bad_total == 1
    assert sorted(tmp_path.rglob("*")) == before


@CHATS
@pytest.mark.parametrize("cut", [10, 60, -5])
def test_zip_that_is_damaged_is_refused(tmp_path, cut, read):
    path = zip_of(tmp_path / "d.zip", json.dumps([{"x": n} for n in range(2000)]).encode())
    data = bytearray(path.read_bytes())
    if cut < 0:
        data = data[:cut]
    else:
        data[cut : cut + 20] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(ImportFormatError, match="cannot be"):
        list(read(path, ImportLog()))


@pytest.mark.parametrize(
    "read",
    [
        read_jsonl,
        read_csv,
        read_mbox,
        read_chatgpt,
        read_claude,
        read_markdown,
        read_git,
        lambda path, log: read_lamp(path, None, log),
        lambda path, log: read_slack(path, log, me="ada"),
    ],
)
def test_source_that_links_to_itself_is_refused(tmp_path, read):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(ImportFormatError, match=r"loop (cannot be read|is not a folder)"):
        next(read(loop, ImportLog()))


def test_chat_that_goes_in_circles_ends(tmp_path):
    nodes = {
        "a": {"parent": "b", "message": None},
        "b": {"parent": "a", "message": None},
    }
    path = tmp_path / "c.json"
    path.write_text(json.dumps([{"mapping": nodes, "current_node": "a"}]))
    log = ImportLog()
    assert list(read_chatgpt(path, log)) == []
    assert log.done == 1


def test_markdown_links_pipes_and_loops_are_not_followed(tmp_path):
    secret = tmp_path / "secret.md"
    secret.write_text("# Secret\npassword")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "good.md").write_text("# Good\ntext")
    (folder / "link.md").symlink_to(secret)
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "pipe.md")
    log = ImportLog()
    assert [record.output for record in read_markdown(folder, log)] == ["Good"]
    assert log.skipped == {"link out of the folder": 1}
    assert sorted(bad.reason.partition(":")[0] for bad in log.bad) == ["loop.md", "pipe.md"]


def test_mbox_mail_nested_too_deeply_costs_itself_only(tmp_path):
    depth = 1500
    nested = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth)
    )
    good = b"From x\nFrom: a@b\nSubject: s\n\nbody\n\n"
    path = tmp_path / "m.mbox"
    path.write_bytes(good + b"From x\nFrom: a@b\nSubject: deep\n" + nested + b"\n\n" + good)
    log = ImportLog()
    records = list(read_mbox(path, log))
    assert [record.output for record in records] == ["s", "s"]
    assert log.skipped.total() + log.bad_total == 1


@pytest.mark.parametrize(
    "piece", ["<!--", "<a ", "<aaaa", "<script>", "<blockquote>", "<![if x", "&", "<"]
)
def test_mbox_html_never_closed_is_read_to_its_end(tmp_path, piece):
    """What is quadratic here takes minutes, and runs into the suite's timeout."""
    path = tmp_path / "m.mbox"
    head = "From x\nFrom: a@b\nSubject: s\nContent-Type: text/html\n\nbefore<p>"
    path.write_text(head + piece * (400_000 // len(piece)) + "\n\n")
    [record] = read_mbox(path, ImportLog())
    assert record.input.startswith("before")


def test_mbox_header_without_end_is_looked_into_no_further_than_a_megabyte(tmp_path):
    path = tmp_path / "m.mbox"
    lines = b"".join(b"X-Line-%d: %s\n" % (n, b"x" * 40) for n in range(80_000))
    path.write_bytes(b"From x\nFrom: a@b\n" + lines + b"Y: " + b"y" * 2**20 + b"\n\nbody\n\n")
    assert mbox.only_sender(path, ImportLog()) == "a@b"
    box = mailbox.mbox(path)
    assert len(mbox._header(box, box.keys()[0])) == 2**20
    box.close()


@pytest.mark.parametrize("piece", ["=?utf-8?q?a?= ", "a <a@b>, ", "a;", "("])
@pytest.mark.parametrize("name", ["Subject", "From", "Date", "Content-Type", "Message-ID"])
def test_mbox_header_without_measure_costs_its_mail_at_most(tmp_path, name, piece):
    path = tmp_path / "m.mbox"
    good = "From x\nFrom: a@b\nSubject: s\n\nbody\n\n"
    path.write_text(f"{good}From x\n{name}: {piece * 5000}\n\nbody\n\n{good}")
    log = ImportLog()
    records = list(read_mbox(path, log))
    assert [records[0].output, records[-1].output] == ["s", "s"]
    assert log.read + log.skipped.total() + log.bad_total == 3
