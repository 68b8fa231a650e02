"""Where an answer begins and ends, whatever the pieces it arrives in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge.llm.text import AnswerText, well_formed

STOPS = (("\n",), ("\nInput:",), ("\nInput:", "###"), ())


def in_pieces(text, cuts):
    places = sorted({min(c, len(text)) for c in cuts})
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def expected(text, stop):
    text = text.lstrip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].lstrip()
    ends = [text.find(s) for s in stop if s in text]
    return (text[: min(ends)] if ends else text).strip()


@given(
    st.text(alphabet="aInput:# \n\té字", max_size=40),
    st.lists(st.integers(0, 40), max_size=8),
    st.sampled_from(STOPS),
)
def test_answer_in_any_pieces_is_the_answer_in_one(text, cuts, stop):
    told = []
    answer = AnswerText(stop, told.append)
    for piece in in_pieces(text, cuts):
        answer.feed(piece)
    whole = answer.finish()
    assert whole == expected(text, stop)
    assert "".join(told) == whole


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<thin", "</", ">", "\n", " ", "a", "Input:", "é"]),
        max_size=8,
    ),
    st.lists(st.integers(0, 40), max_size=8),
    st.sampled_from(STOPS),
)
def test_what_is_thought_aloud_first_is_no_answer_in_any_pieces(parts, cuts, stop):
    text, told = "".join(parts), []
    answer = AnswerText(stop, told.append)
    for piece in in_pieces(text, cuts):
        answer.feed(piece)
    assert answer.thinks is (text.lstrip().startswith("<think>") and "</think>" not in text)
    assert expected(text, stop).startswith("".join(told))
    assert answer.finish() == expected(text, stop) == "".join(told)


def test_thought_without_an_end_takes_little_room_and_has_no_text():
    answer = AnswerText(("\n",))
    for _ in range(1000):
        answer.feed("<think> Hm,\n let me see. ")
    assert (answer.thinks, answer.text, answer.stopped) == (True, "", False)
    assert len(answer._opening) < 10
    answer.feed("</thi")
    answer.feed("nk>\n\nA subject\nmore")
    assert (answer.thinks, answer.finish()) == (False, "A subject")


@pytest.mark.parametrize("text", ["<", "<think", "<thinker> is a word", "a <think> b</think> c"])
def test_answer_that_only_looks_like_a_thought_is_kept(text):
    answer = AnswerText(("\n",))
    answer.feed(text)
    assert answer.text == text
    assert answer.finish() == text


@given(st.text(alphabet="aé字🙂\n", max_size=20), st.lists(st.integers(0, 60), max_size=12))
def test_bytes_cut_inside_characters_give_the_same_text(text, cuts):
    raw = text.encode()
    answer = AnswerText(("\n",))
    for piece in in_pieces(raw, cuts):
        answer.feed_bytes(piece)
    assert answer.finish() == expected(text, ("\n",))


def test_answer_cut_in_a_character_leaves_it_out():
    answer = AnswerText(())
    answer.feed_bytes("ok 字".encode()[:-1])
    assert answer.finish() == "ok"


def test_answer_after_its_stop_ignores_what_comes():
    answer = AnswerText(("\n",))
    answer.feed("one\ntwo")
    answer.feed("three")
    assert answer.stopped
    assert answer.finish() == "one"


def test_stream_holds_back_what_may_become_a_stop():
    told = []
    answer = AnswerText(("\nInput:",), told.append)
    answer.feed("line\nIn")
    assert told == ["line"]
    answer.feed("side")
    assert "".join(told) == "line\nInside"


@pytest.mark.parametrize(("raw", "clean"), [("a\ud800b", "a?b"), ("é🙂", "é🙂")])
def test_well_formed_replaces_only_lone_surrogates(raw, clean):
    assert well_formed(raw) == clean


def test_stop_string_at_the_very_beginning_tells_nothing():
    told = []
    answer = AnswerText(["STOP"], told.append)
    for letter in "STOP it":
        answer.feed(letter)
    assert (answer.finish(), told) == ("", [])
