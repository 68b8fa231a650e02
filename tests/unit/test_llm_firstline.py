"""What a chat model wrote, read as an answer of one line: certain, or as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.llm.firstline import chat_answer, first_line
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

SUBJECT = BUILTIN["commit_subject"]
LINE = "scheduler: check for an empty queue"
TEXTS = {
    LINE: LINE,
    f"Sure! Here is a subject line:\n\n{LINE}": LINE,
    f"Here's one:\n{LINE}": LINE,
    f"**Here is the line:**\n\n**{LINE}**": LINE,
    f"Ein Subject für dich:\n\n{LINE}": LINE,
    f"One of these:\n```\n{LINE}\n```": LINE,
    f"```\n{LINE}\n```": LINE,
    f"```text\r\n{LINE}\r\n```": LINE,
    f"### Subject\n{LINE}": LINE,
    f"Subject:\n\n{LINE}": LINE,
    f"# {LINE}": LINE,
    f"Subject: {LINE}": LINE,
    f"**Subject:** {LINE}": LINE,
    f"**Subject**: `{LINE}`": LINE,
    f"**Subject: {LINE}**": LINE,
    f"subject\uff1a{LINE}": LINE,
    f'"{LINE}"': LINE,
    f"`{LINE}`": LINE,
    f"\u201e{LINE}\u201c": LINE,
    f"1. {LINE}\n2. scheduler: guard": LINE,
    f"{LINE}\n\nThis subject follows your style.": LINE,
    # What may be meant stays.
    'Call it "parser" or "lexer"': 'Call it "parser" or "lexer"',
    "**parser** and **lexer**": "**parser** and **lexer**",
    "Subject: **parser** first": "**parser** first",
    "1. of May": "1. of May",
    "1. of May\nIt is a holiday.": "1. of May",
    "Shopping list:\n\n- milk": "Shopping list:",
    "Shopping list:": "Shopping list:",
    "Here it ends:": "Here it ends:",
    "Subject:": "Subject:",
    "subjects: name them": "subjects: name them",
    "subject:verb agreement": "subject:verb agreement",
    "'tis the season": "'tis the season",
    "#5 is alive": "#5 is alive",
    '""': '""',
    "```\n```": "",
}


@pytest.mark.parametrize("text", TEXTS)
def test_first_line_is_what_a_user_would_paste(text: str) -> None:
    assert first_line(text, "Subject", (), whole=True) == TEXTS[text]


@pytest.mark.parametrize(
    ("example", "text"),
    [
        ('"Heroes"', '"Ashes"'), ("`a` b`", "`c`"), ("**a**", "**b**"),
        ("Subject: a", "Subject: b"), ("# a", "# b"), ("Here they are:", "Here it is:\n\nb"),
        ("1. a", "1. b\n2. c"),
    ],
)  # fmt: skip
def test_first_line_leaves_what_the_user_writes_so(example: str, text: str) -> None:
    line = text.split("\n", maxsplit=1)[0]
    assert first_line(text, "Subject", (example,), whole=True) == line
    assert first_line(text, "Subject", ("plain",), whole=True) != line


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_chat_answer_in_any_pieces_is_told_once_and_is_the_text(text: str, cuts: list[int]) -> None:
    told: list[str] = []
    answer = chat_answer(Prompt(SUBJECT, "q"), told.append)
    places = sorted({min(c, len(text)) for c in cuts})
    for a, b in zip([0, *places], [*places, len(text)], strict=True):
        answer.feed(text[a:b])
    assert answer.finish() == TEXTS[text]
    assert told == ([TEXTS[text]] if TEXTS[text] else [])


def test_chat_answer_ends_once_its_line_is_known() -> None:
    answer = chat_answer(Prompt(SUBJECT, "q"))
    answer.feed(f"<think>\nHm.\n</think>\nSure, here it is:\n\n{LINE}")
    assert not answer.stopped
    answer.feed("\nAnd more")
    assert (answer.stopped, answer.finish()) == (True, LINE)


def test_chat_answer_of_several_lines_or_of_a_closed_set_is_read_as_it_is() -> None:
    text = '"Dear Eva,"\n\nE-mail: a@b.example\n\nE-mail: c'
    answer = chat_answer(Prompt(BUILTIN["email_reply"], "q"))
    answer.feed(text)
    assert answer.finish() == text
    closed = chat_answer(Prompt(BUILTIN["movie_tag"], "q"))
    closed.feed('"action"\nIt is.')
    assert closed.finish() == '"action"'


def test_chat_answer_knows_the_records_chosen_where_none_had_room() -> None:
    prompt = build_prompt(SUBJECT, "q", [Record("in", '"out"', id="r")]).without_shots()
    for asked, line in ((prompt, '"a"'), (replace(prompt, examples=()), "a")):
        answer = chat_answer(asked)
        answer.feed('"a"')
        assert answer.finish() == line
