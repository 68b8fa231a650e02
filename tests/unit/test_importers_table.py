from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from importing import peak_of

from hydra_edge.errors import ConfigError, ImportFormatError
from hydra_edge.importers import ImportLog, read_csv

# Texts a csv writer need not quote, so that a stray quote elsewhere cannot pair with theirs.
PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1).filter(
    lambda text: text.strip() and not set(text) & set(',"')
)


def read(data: bytes | str, **options):
    raw = data.encode() if isinstance(data, str) else data
    log = ImportLog()
    stream = io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8", newline="")
    return list(read_csv(stream, log, **options)), log


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_any_delimiter_is_recognised(tmp_path, delimiter):
    path = tmp_path / "h.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as handle:
        writer = csv.writer(handle, delimiter=delimiter)
        writer.writerow(["id", "input", "output", "task", "time", "private", "more"])
        writer.writerow(
            ["7", 'a, b; c\t"d" | e', "日本語 🎌", "Movie-Tag", "1970-01-02", "yes", "x"]
        )
        writer.writerow(["", "line\nbreak", "out", "", "", "", ""])
    log = ImportLog()
    first, second = read_csv(path, log)
    assert (first.id, first.input, first.output) == ("7", 'a, b; c\t"d" | e', "日本語 🎌")
    assert (first.task, first.time, first.private) == ("movie_tag", 86400.0, True)
    assert (second.id, second.input, second.task, second.time) == (
        "",
        "line\nbreak",
        "general",
        None,
    )
    assert first.source == f"csv:{path}"
    assert log.done == log.total == path.stat().st_size


def test_csv_columns_are_renamed():
    [record], _ = read("Title,Body\nT,B\n", columns={"input": "Body", "output": "Title"})
    assert (record.input, record.output, record.source) == ("B", "T", "csv:-")


def test_csv_missing_column_is_named_with_those_that_exist():
    with pytest.raises(
        ImportFormatError, match=r"no column 'input' or 'output'; its columns are 'Body', 'Title'"
    ):
        read("Body;Title\na;b\n")


def test_columns_not_in_ascii_are_named_as_they_are():
    with pytest.raises(ImportFormatError, match="its columns are 'Вопрос', 'Ответ', '日本語'"):
        read("Вопрос;Ответ;日本語\na;b;c\n")


def test_columns_that_would_act_on_a_terminal_are_escaped():
    with pytest.raises(ImportFormatError) as refused:
        read("Bo\u202edy;\u2066Ti\x1b[2Jtle\na;b\n")
    assert r"its columns are 'Bo\u202edy', '\u2066Ti\x1b[2Jtle'" in str(refused.value)


def test_csv_asked_for_column_that_is_missing_is_named():
    with pytest.raises(ImportFormatError, match="no column 'key'; its columns are"):
        read("input,output\na,b\n", columns={"id": "key"})


@pytest.mark.parametrize(
    ("header", "columns", "said"),
    [
        ("input,output", {"id": "key"}, "Expected id. Say where that is: --id, or"),
        ("input,output", {"time": "t", "id": "k"}, "Expected id and time. Say where that is: "
         "--id and --time, or"),
        ("a,b", {}, "Expected input and output. Say where that is: --input and --output, or"),
        ("input,b", {}, "Expected output. Say where that is: --output, or"),
    ],
)  # fmt: skip
def test_csv_missing_column_says_which_options_failed(header, columns, said):
    with pytest.raises(ImportFormatError) as caught:
        read(f"{header}\na,b\n", columns=columns)
    assert said in str(caught.value)


def test_csv_columns_with_unknown_field_are_refused():
    with pytest.raises(ConfigError, match="no field 'body'"):
        read("input,output\n", columns={"body": "input"})


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_csv_without_header_is_refused(data):
    with pytest.raises(ImportFormatError, match=r"is empty\. Expected a table"):
        read(data)


def test_csv_header_alone_gives_nothing():
    records, log = read("input,output\n")
    assert (records, log.read, log.bad) == ([], 0, [])


def test_csv_line_numbers_count_quoted_newlines():
    data = (
        "input,output,time\r\n"
        '"two\r\nlines","three\n\nlines",\r\n'  # lines 2 to 5
        "\r\n"
        "a,b,never\r\n"
        "a\r\n"
        "a,b,,\r\n"
        "a,b,1,extra\r\n"
        ",b,\r\n"
        "a,b,9\r\n"
    )
    records, log = read(data)
    assert [record.output for record in records] == ["three\n\nlines", "b", "b"]
    assert [bad.number for bad in log.bad] == [7, 8, 10]
    assert [bad.reason for bad in log.bad][1:] == [
        "the number of fields is 1; expected 3",
        "the number of fields is 4; expected 3",
    ]
    assert log.skipped == {"empty input": 1}


def test_csv_bad_bytes_cost_their_row_only():
    records, log = read(b'input,output\na,b\n"c\xff\nd",e\nf,g\n')
    assert [record.input for record in records] == ["a", "f"]
    [bad] = log.bad
    assert bad.number == 3
    assert bad.reason.startswith("not UTF-8; if the whole file is not, convert it first: iconv")


def test_csv_times_that_are_no_iso_dates_say_what_is_and_can_be_left_out():
    data = "input,output,time\na,b,31.12.2023\n"
    records, log = read(data)
    assert records == []
    assert log.bad[0].reason == (
        "time is '31.12.2023'; expected unix seconds or an ISO date such as 2023-12-31"
    )
    [record], log = read(data, columns={"time": ""})
    assert (record.input, record.time, log.bad) == ("a", None, [])


def test_csv_quote_never_closed_costs_its_line_only():
    records, log = read('input,output\na,b\nc,"d\ne,f\n"g",h\ni,"j\nk,l\n')
    assert [record.input for record in records] == ["a", "e", "g", "k"]
    assert [bad.number for bad in log.bad] == [3, 6]


def test_csv_huge_field_is_kept_and_the_global_limit_left_alone():
    limit = csv.field_size_limit()
    [record], _ = read(f"input,output\n{'x' * 10**6},y\n")
    assert len(record.input) == 10**6
    assert csv.field_size_limit() == limit


def test_csv_old_line_ends_are_understood():
    records, log = read("input,output\ra,b\rc\rd,e\r")
    assert [record.input for record in records] == ["a", "d"]
    assert [bad.number for bad in log.bad] == [3]


def test_csv_large_file_is_streamed(tmp_path):
    path = tmp_path / "large.csv"
    path.write_text("input,output\n" + ("word " * 200 + ",out\n") * 2000)
    log = ImportLog()
    peak = peak_of(lambda: read_csv(path, log))
    assert log.read == 2000
    assert peak < 3 * 10**5


@settings(deadline=None)  # a loaded machine is no failure
@given(st.binary())
def test_csv_arbitrary_bytes_raise_nothing_but_format_errors(data):
    for head in (b"", b"input,output\n"):
        try:
            for record in read(head + data)[0]:
                assert record.input.encode().strip()
                assert record.output.encode().strip()
        except ImportFormatError:
            pass


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.lists(st.tuples(PLAIN, PLAIN), min_size=1),
    st.binary().map(lambda junk: junk.replace(b"\n", b"").replace(b"\r", b"")),
    st.integers(min_value=0),
)
def test_csv_good_rows_survive_any_bad_line(good, junk, place):
    rows = [f"good-{n},{a},{b}".encode() for n, (a, b) in enumerate(good)]
    rows.insert(place % (len(rows) + 1), junk)
    records, log = read(b"id,input,output\n" + b"\n".join(rows) + b"\n")
    kept = [record for record in records if record.id.startswith("good-")]
    assert [(record.input, record.output) for record in kept] == good
    assert log.read == len(records)
