from __future__ import annotations

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import peak_of

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers import BadLine, ImportLog, read_jsonl

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and "\x00" not in text
)


def stream_of(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")


def read(data: bytes, **options):
    log = ImportLog()
    return list(read_jsonl(stream_of(data), log, **options)), log


def line(**fields) -> bytes:
    return json.dumps({"input": "in", "output": "out"} | fields).encode() + b"\n"


def test_jsonl_full_line_becomes_a_record(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_bytes(
        line(id=5, task="Commit-Subject", time="2024-01-01", private=True, other=[1]) + line()
    )
    log = ImportLog()
    first, second = read_jsonl(path, log, task="note title")
    assert (first.id, first.task, first.private) == ("5", "commit_subject", True)
    assert first.time == 1704067200.0
    assert (second.id, second.task, second.private, second.time) == ("", "note_title", False, None)
    assert first.source == f"jsonl:{path}"
    assert (log.read, log.bad_total, log.skipped.total()) == (2, 0, 0)
    assert log.done == log.total == path.stat().st_size


def test_jsonl_read_twice_gives_identical_records(tmp_path, monkeypatch):
    (tmp_path / "h.jsonl").write_bytes(line(id="a") + line())
    monkeypatch.chdir(tmp_path)
    relative = type(tmp_path)("h.jsonl")
    assert list(read_jsonl(relative, ImportLog())) == list(
        read_jsonl(tmp_path / "h.jsonl", ImportLog())
    )


def test_jsonl_stream_has_a_stable_source_and_stays_open():
    stream = stream_of(line())
    log = ImportLog()
    [record] = read_jsonl(stream, log)
    assert record.source == "jsonl:-"
    assert not stream.closed
    assert log.total is None
    assert log.done == len(line())


def test_jsonl_stream_of_text_only_is_read():
    [record] = read_jsonl(io.StringIO('{"input": "שלום", "output": "👋"}\n'), ImportLog())
    assert (record.input, record.output) == ("שלום", "👋")


def test_jsonl_bom_crlf_and_blank_lines_are_no_lines_of_their_own():
    data = b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n") + b"\r\n  \n" + b"oops\n" + line()
    records, log = read(data)
    assert len(records) == 2
    assert [bad.number for bad in log.bad] == [4]


def test_jsonl_bad_lines_are_numbered_and_good_ones_kept():
    data = b"".join([
        line(id="first"),
        b'{"input": "a", "output": "b"\n',
        b'{"input": "\xff", "output": "b"}\n',
        b"[1]\n",
        b'{"input": "a"}\n',
        line(time=float("nan")),
        line(id="x" * 201),
        line(id="a\tb"),
        line(private="perhaps"),
        line(input={}),
        b'{"input": ' + b"9" * 5000 + b', "output": "b"}\n',
        line(id="last"),
    ])  # fmt: skip
    records, log = read(data)
    assert [record.id for record in records] == ["first", "last"]
    reasons = {bad.number: bad.reason for bad in log.bad}
    assert sorted(reasons) == list(range(2, 12))
    assert "not JSON" in reasons[2]
    assert "not UTF-8" in reasons[3]
    assert reasons[4] == "the line is a list; expected an object"
    assert reasons[5] == "no 'output'; expected keys 'input' and 'output'"
    assert "time" in reasons[6]
    assert "201 characters" in reasons[7]
    assert "control" in reasons[8]
    assert "private" in reasons[9]
    assert "too long" in reasons[11]
    assert log.bad_total == 10


def test_jsonl_empty_texts_are_skipped_and_counted():
    records, log = read(line(input="") + line(output="  ") + line(output=None) + line())
    assert len(records) == 1
    assert log.skipped == {"empty input": 1, "empty output": 2}
    assert log.bad == []


def test_jsonl_columns_reach_other_and_nested_keys():
    data = (
        b'{"body": {"text": "b"}, "title": 4.0, "meta.id": "dot", "parts": [{"at": 9}]}\n'
        b'{"title": "t"}\n'
    )
    columns = {"input": "body.text", "output": "title", "id": "meta.id", "time": "parts.0.at"}
    [record], log = read(data, columns=columns)
    assert (record.input, record.output, record.id, record.time) == ("b", "4", "dot", 9.0)
    assert log.bad == [BadLine(2, "no 'body.text'; expected keys 'body.text' and 'title'")]


def test_jsonl_columns_with_unknown_field_are_refused():
    with pytest.raises(ConfigError, match="no field 'inputs'; expected input, output"):
        read(b"", columns={"inputs": "x"})


def test_jsonl_private_option_cannot_be_undone_by_a_line():
    records, _ = read(line(private=False) + line(), private=True)
    assert [record.private for record in records] == [True, True]


def test_jsonl_record_of_a_megabyte_is_kept():
    text = "字" * 350_000
    [record], _ = read(line(input=text))
    assert record.input == text


def test_jsonl_unpaired_surrogate_becomes_storable():
    [record], _ = read(b'{"input": "\\ud800 \\u0000", "output": "\\ud83d\\ude00"}\n')
    assert record.input == "\ufffd \ufffd"
    assert record.output == "😀"


def test_jsonl_without_any_object_is_refused():
    with pytest.raises(ImportFormatError, match=r"no line that could be read; line 1: not JSON"):
        read(b"From a@b Mon\nSubject: x\n")


def test_jsonl_utf16_is_refused_with_advice():
    with pytest.raises(ImportFormatError, match=r"UTF-16.*iconv"):
        read(line().decode().encode("utf-16"))


def test_jsonl_empty_source_gives_nothing():
    assert read(b"") == ([], ImportLog(unit="bytes"))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_jsonl_that_cannot_be_opened_is_refused(tmp_path, name):
    with pytest.raises(ImportFormatError, match=r"cannot be read: .*Expected JSON Lines"):
        list(read_jsonl(tmp_path / name, ImportLog()))


def test_jsonl_large_file_is_streamed(tmp_path):
    path = tmp_path / "large.jsonl"
    path.write_bytes(line(input="word " * 200) * 2000)
    assert path.stat().st_size > 2 * 10**6
    log = ImportLog()
    peak = peak_of(lambda: read_jsonl(path, log))
    assert log.read == 2000
    assert peak < 3 * 10**5


@settings(deadline=None)  # a loaded machine is no failure
@given(st.binary())
def test_jsonl_arbitrary_bytes_raise_nothing_but_format_errors(data):
    log = ImportLog()
    taken = 0
    try:
        for record in read_jsonl(stream_of(data), log):
            taken += 1
            assert record.input.encode().strip()
            assert record.output.encode().strip()
    except ImportFormatError:
        pass
    assert log.read == taken


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1),
    st.lists(st.binary().map(lambda junk: junk.replace(b"\n", b"")), min_size=1),
)
def test_jsonl_good_lines_survive_any_neighbour(good, junk):
    lines = []
    for place, (asked, written) in enumerate(good):
        lines.append(line(input=asked, output=written, id=f"good-{place}"))
        lines.append(junk[place % len(junk)] + b"\n")
    records, log = read(b"".join(lines))
    kept = [record for record in records if record.id.startswith("good-")]
    assert [(record.input, record.output) for record in kept] == good
    assert log.read == len(records)


def test_time_of_the_last_day_there_is_can_be_read(tmp_path):
    """What one door takes another must: it comes back from an export."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "a", "output": "b", "time": 253402300799.0}\n', encoding="utf-8")
    log = ImportLog()
    assert [record.time for record in read_jsonl(path, log)] == [253402300799.0]
    assert not log.bad


def test_jsonl_keys_asked_for_that_no_line_has_are_noted():
    _, log = read(line(at=5) + b"not json\n" + line(), columns={"time": "when", "id": "nope"})
    assert log.notes == ["no line has 'nope' (--id)", "no line has 'when' (--time)"]


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        (line() + line(at=5), {"time": "at"}),
        (line(), {}),
        (line(), {"time": ""}),
        (b"", {"time": "at"}),
        (b'{"output": "out"}\n', {"time": "at"}),  # its fields were not looked at
    ],
)
def test_jsonl_keys_that_a_line_has_or_nobody_asked_for_are_not_noted(data, columns):
    assert read(data, columns=columns)[1].notes == []


def test_jsonl_time_at_no_key_is_not_read():
    [record], log = read(line(time="31.12.2023"), columns={"time": ""})
    assert (record.time, log.bad) == (None, [])
