"""What reaches a terminal or a pipe."""

import io
import json
from contextlib import redirect_stdout

import pytest

from hydra_edge import reasons
from hydra_edge.cli import options, output


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that wants colours; a test puts it where stdout is."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


HOSTILE = "a\x1b[31mred\x1b]0;title\x07 \x9b2J back\x08 \r\n\u202eright\ttab"


def test_harmless_control_characters_become_visible():
    shown = output.harmless(HOSTILE)

    assert not set(shown) & {"\x1b", "\x07", "\x08", "\x9b", "\r", "\u202e"}
    assert "␛[31mred" in shown
    assert "\n" in shown
    assert "\t" in shown


@pytest.mark.parametrize("text", ["naïve 😀👩‍👩‍👧", "שלום \u200f עולם", "日本語\n次の行", ""])
def test_harmless_ordinary_text_is_unchanged(text):
    assert output.harmless(text) == text


def test_answer_into_a_pipe_is_byte_for_byte(capsys):
    output.answer(HOSTILE)

    assert capsys.readouterr().out == HOSTILE + "\n"


def test_answer_on_a_terminal_is_harmless(terminal):
    with redirect_stdout(terminal):
        output.answer(HOSTILE)

    assert "␛[31mred" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


def test_write_json_hostile_text_survives_and_holds_no_raw_control(capsys):
    output.write_json({"text": HOSTILE, "kana": "あ"})

    written = capsys.readouterr().out
    assert json.loads(written) == {"text": HOSTILE, "kana": "あ"}
    assert not set(written) & {"\x1b", "\x9b", "\u202e"}


def test_paint_no_color_set_is_plain(terminal, monkeypatch):
    assert output.paint("x", "red", terminal) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", terminal) == "x"


def test_paint_pipe_is_plain():
    assert output.paint("x", "red", io.StringIO()) == "x"


def test_one_line_long_text_is_cut_with_an_ellipsis():
    assert output.one_line("one\n two   three", 9) == "one two …"
    assert len(output.one_line("word " * 100_000, 40)) == 40


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("plain", ""),
        ("\u05e9\u05dc\u05d5\u05dd \u200f", ""),  # right to left by its letters: ends with them
        ("a \u202b\u05e9\u202c b", ""),
        ("a \u2067\u05e9\u2069 b", ""),
        ("\u202bx", "\u202c"),
        ("\u202ax \u202bx", "\u202c\u202c"),
        ("\u2066x \u2067x \u2068x\u2069", "\u2069\u2069"),
        ("\u202ax \u2067x", "\u2069\u202c"),
        ("\u2067x \u202bx\u2069", ""),
        ("\u202bx \u2067x\u202c", "\u2069\u202c"),  # no embedding of the isolate's to end
        ("x\u202c\u2069 \u202bx", "\u202c"),
        ("\u202ax\u2069", "\u202c"),
    ],
)
def test_one_line_direction_left_open_is_ended(text, ends):
    assert output.one_line(text) == text + ends


def test_one_line_many_marks_of_direction_are_each_read_once():
    opened = 200_000 * "\u202b"
    assert output.one_line(opened + 200_000 * "\u2069").endswith(200_000 * "\u202c")


def test_one_line_cut_within_a_direction_ends_it_before_the_ellipsis():
    assert output.one_line("ab \u2067cdef\u2069", 6) == "ab \u2067c\u2069…"


def test_table_cut_within_a_direction_ends_it_before_the_ellipsis(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    output.table(("id", "text"), [("\u202bi", "\u2067" + "x" * 300)], stream=terminal)

    _, line = terminal.getvalue().splitlines()
    assert line.startswith("\u202bi\u202c ")
    assert line.endswith("x\u2069…")


def test_table_in_a_pipe_is_aligned_and_uncut(capsys):
    output.table(("id", "text"), [("a", "x" * 300), ("日本", "short")])

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id    text"
    assert lines[1] == "a     " + "x" * 300
    assert lines[2] == "日本  short"


def test_table_on_a_narrow_terminal_cuts_the_last_column(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    output.table(("id", "text"), [("a", "x" * 300)], stream=terminal)

    assert terminal.getvalue().splitlines()[1].endswith("…")
    assert len(terminal.getvalue().splitlines()[1]) <= 40


def test_table_markup_in_a_cell_is_shown_as_it_is(capsys):
    output.table(("a",), [("[bold red]x[/] :smile:",)])

    assert "[bold red]x[/] :smile:" in capsys.readouterr().out


def test_pieces_of_an_answer_are_written_as_they_come(capsys):
    for text in ("Fix", " the ", "", " crash"):
        output.piece(text)

    assert capsys.readouterr().out == "Fix the  crash"


def test_write_error_text_with_line_breaks_is_one_line(capsys):
    output.write_error("config", "Bad:\n\x1b[2Jgot x.", as_json=True)

    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert json.loads(written.out)["error"]["code"] == "config"


def test_progress_no_terminal_is_silent(capsys):
    with output.progress() as update:
        assert update is None
    assert capsys.readouterr().err == ""


def test_progress_terminal_draws_a_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with output.progress() as update:
        update("reading [bold]", 1, 2)
    assert "reading [bold]" in stream.getvalue()


def test_late_bar_is_drawn_only_while_something_is_left(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with output.LateBar() as bar:
        bar("embed", 1, 1)
        assert stream.getvalue() == "", "what was done at once needs no bar"
        bar("embed", 1, 2)
        assert "embed" in stream.getvalue()
        bar("embed", 2, 2)
        done = stream.getvalue()
        bar("embed", 3, 3)
        assert stream.getvalue() == done


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60s", 60.0), ("2m", 120.0), ("500ms", 0.5), ("1.5h", 5400.0), (" 7 ", 7.0), ("0", 0.0)],
)
def test_seconds_duration_is_read(text, expected):
    assert options.seconds(text, "--budget") == expected


@pytest.mark.parametrize("text", ["", "fast", "-1s", "1d", "s", "1 2", "٣s"])
def test_seconds_no_duration_is_refused(text):
    with pytest.raises(Exception, match="is no duration; expected for example 60s"):
        options.seconds(text, "--budget")


def test_reasons_every_feature_is_explained():
    from hydra_edge.features import ADAPTER_FEATURES, RERANKER_FEATURES

    assert set(reasons.RERANKER_WORDS) == set(RERANKER_FEATURES)
    assert set(reasons.ADAPTER_WORDS) == set(ADAPTER_FEATURES)


def test_reasons_largest_contributions_come_first_with_their_share():
    text = reasons.reasons(
        {"bm25": 0.5, "recency": -1.25, "habit": 0.001, "map_input_3": 0.1}, "reranker"
    )

    assert (
        text
        == "-1.25 recent; +0.50 shares rare words with the query; +0.10 learned likeness input 3"
    )
    assert reasons.reasons({}, "adapter") == "nothing speaks for or against it"
