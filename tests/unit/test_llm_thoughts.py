"""What models think aloud before an answer, in whatever marks: no answer, unless the user's own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydra_edge.llm.firstline import chat_answer
from hydra_edge.llm.reply import read_reply
from hydra_edge.llm.text import AnswerText
from hydra_edge.llm.thoughts import THOUGHTS, marks_beside
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

MAIL, TITLE = BUILTIN["email_reply"], BUILTIN["note_title"]
ANSWER = "Hi Ann,\n\nyes.\nTom"
HARMONY = "<|channel|>analysis<|message|>She asks.\n\nSay yes.<|end|>"
# As they were seen in the text of servers that do not know their model's marks.
TEXTS = {
    f"<think>\nShe asks.\n</think>\n\n{ANSWER}": ANSWER,
    f"<thinking>She asks.</thinking>\n\n{ANSWER}": ANSWER,
    f"<thought>\nShe asks.\n</thought>{ANSWER}": ANSWER,
    f"<reasoning>\nShe asks.\n</reasoning>\n{ANSWER}": ANSWER,
    f"<reasoning>\nShe asks.\n</reasoning>\n<answer>\n{ANSWER}\n</answer>": ANSWER,
    f"[THINK]She asks.[/THINK]{ANSWER}": ANSWER,
    f"\u25c1think\u25b7She asks.\u25c1/think\u25b7{ANSWER}": ANSWER,
    f"<seed:think>She asks.</seed:think>\n{ANSWER}": ANSWER,
    f"<mm:think>She asks.</mm:think>\n{ANSWER}": ANSWER,
    f"<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n{ANSWER}": ANSWER,
    "<|begin_of_thought|>Hm.<|end_of_thought|>\n\n<|begin_of_solution|>\n\n"
    f"{ANSWER}\n\n<|end_of_solution|>": ANSWER,
    "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>"
    f"{ANSWER}<|END_RESPONSE|>": ANSWER,
    f"<|channel>thought\nShe asks.<channel|>{ANSWER}": ANSWER,
    f"<|channel>thought\n<channel|>{ANSWER}": ANSWER,
    f"{HARMONY}<|start|>assistant<|channel|>final<|message|>{ANSWER}": ANSWER,
    f"{HARMONY}<|channel|>final<|message|>{ANSWER}": ANSWER,
    f"<|start|>assistant{HARMONY}<|start|>assistant<|channel|>final<|message|>{ANSWER}": ANSWER,
    f"<|channel|>final<|message|>{ANSWER}": ANSWER,
    # No thoughts: they are not what an answer begins with.
    f"{ANSWER}\n<thinking>or no?</thinking>": f"{ANSWER}\n<thinking>or no?</thinking>",
    "<answer>42</answer>": "<answer>42</answer>",
    "<reason>it rains</reason>": "<reason>it rains</reason>",
    "[THIN": "[THIN",
    "<|chan": "<|chan",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), max_size=8))
def test_thoughts_are_no_answer_in_any_pieces(text: str, cuts: list[int]) -> None:
    told: list[str] = []
    answer = chat_answer(Prompt(MAIL, "q"), told.append)
    places = sorted({min(c, len(text)) for c in cuts})
    for a, b in zip([0, *places], [*places, len(text)], strict=True):
        answer.feed(text[a:b])
    assert answer.finish() == TEXTS[text]
    assert "".join(told) == TEXTS[text]


@pytest.mark.parametrize("marks", THOUGHTS, ids=lambda marks: marks.begin)
def test_thought_without_an_end_is_no_answer(marks) -> None:
    answer = AnswerText(("\n",))
    for _ in range(1000):
        answer.feed(f"{marks.begin} Hm,\n let me see. ")
    assert (answer.thinks, answer.text, answer.stopped) == (True, "", False)
    assert len(answer._opening or "") < 40
    answer.feed(f"{marks.end}\n\nA subject\nmore")
    assert (answer.thinks, answer.thought, answer.finish()) == (False, True, "A subject")


@pytest.mark.parametrize("marks", THOUGHTS, ids=lambda marks: marks.begin)
def test_answer_of_one_line_is_the_one_behind_its_thought(marks) -> None:
    answer = chat_answer(Prompt(TITLE, "q"))
    first, last = marks.around
    answer.feed(f"{marks.begin}\nA title?\n{marks.end}\n\n{first}Garden in May{last}\nor June")
    assert answer.finish() == "Garden in May"


@pytest.mark.parametrize("marks", THOUGHTS[1:], ids=lambda marks: marks.begin)
@pytest.mark.parametrize("task", [MAIL, TITLE], ids=lambda task: task.name)
def test_what_the_user_writes_in_such_marks_is_kept(task, marks) -> None:
    text = f"{marks.begin}so{marks.end} it is"
    prompt = build_prompt(task, "q", [Record("in", f"{marks.begin}a{marks.end} b", id="r")])
    for asked in (prompt, prompt.without_shots()):
        answer = chat_answer(asked)
        answer.feed(text)
        assert answer.finish() == text
    assert len(marks_beside(prompt.examples)) < len(THOUGHTS)
    others = chat_answer(build_prompt(task, "q", [Record("in", "plain", id="r")]))
    others.feed(text)
    assert others.finish() == "it is"


def test_records_with_a_models_thoughts_ask_for_no_thoughts() -> None:
    prompt = build_prompt(MAIL, "q", [Record("in", "<think>Hm</think>\n\nHi", id="r")])
    answer = chat_answer(prompt)
    answer.feed("<think>Hm</think>\n\nHi")
    assert answer.finish() == "Hi"


def test_reply_of_thoughts_alone_is_told_to_be_one() -> None:
    raw = b'{"choices": [{"message": {"content": "%b"}, "finish_reason": "%b"}]}'
    for reason, ended in ((b"length", False), (b"stop", True)):
        body = raw % (b"<|channel|>analysis<|message|>Hm.", reason)
        reply = read_reply(body, "m", Prompt(MAIL, "q"), n=1, greedy=True, max_tokens=9)
        assert (reply.completions, reply.thinks, reply.ended) == ((), True, ended)
