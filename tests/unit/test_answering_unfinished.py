"""Answers that are not whole, or did not come: whole ones win, and it is told."""

from __future__ import annotations

import io

import pytest
from title_writer import Make, people

from hydra_edge.adapter import merge
from hydra_edge.cli import views
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

TITLE = BUILTIN["paper_title"]
BROKEN = "the answer is not whole: the LLM's reply broke off before its end"
LIMIT = "the answer is not whole: it ends at its 32 tokens; more come with max_tokens "


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


class Ending:
    """An LLM that gives the answers it was made with."""

    name = "ending"
    is_remote = False

    def __init__(self, *answers: tuple[str, str]) -> None:
        self.answers = answers

    def render(self, prompt, *, max_tokens=None, seed=0) -> str:
        return prompt.completion_text()

    def complete(self, prompt, *, n=1, on_short=None, **_) -> list[Completion]:
        if on_short is not None and len(self.answers) < n:
            on_short(OSError("nobody is there"))
        return [
            Completion(text, greedy=i == 0, finish=end)
            for i, (text, end) in enumerate(self.answers[:n])
        ]

    def close(self) -> None:
        """Hold nothing."""


@pytest.mark.parametrize(("finish", "note"), [("length", LIMIT), ("cut", BROKEN)])
def test_generate_answer_that_is_not_whole_is_told_of(person: Make, finish: str, note: str) -> None:
    made = person(llm=Ending(*[("On speech and", finish)] * 8)).generate("about speech")
    assert made.text == "On speech and"
    assert [n[: len(note)] for n in made.notes] == [note]
    assert made.candidates[0].finish == finish


@pytest.mark.parametrize("finish", ["length", "cut"])
def test_generate_whole_answer_wins_over_any_that_is_not(person: Make, finish: str) -> None:
    llm = Ending(*[("On speech and", finish)] * 7, ("telephones?!", "stop"))
    made = person(llm=llm).generate("about speech")
    assert (made.text, made.notes) == ("telephones?!", ())
    assert [(c.text, c.finish) for c in made.candidates] == [
        ("telephones?!", "stop"), ("On speech and", finish)
    ]  # fmt: skip
    assert made.candidates[0].score < made.candidates[1].score
    told = io.StringIO()
    views.write_explanation(made, stream=told)
    views.write_candidates(made, stream=told)
    assert "1 of 2 candidates are not whole, and stand behind the others" in told.getvalue()
    assert {"length": " at its limit", "cut": " broken off"}[finish] in told.getvalue()


def test_generate_closed_set_knows_no_answer_that_is_not_whole(person: Make) -> None:
    made = person(llm=Ending(*[("4", "length")] * 8)).generate("a film", task="film_rating")
    assert {c.finish for c in made.candidates} == {"stop"}
    assert made.notes == ()


@pytest.mark.parametrize(
    ("ends", "best"),
    [
        (["cut", "length"], "length"), (["length", "stop"], "stop"), (["cut"], "cut"),
        (["stop", "cut"], "stop"), (["cut", "end_turn"], "stop"), (["end_turn", "cut"], "stop"),
    ],
)  # fmt: skip
def test_merge_candidate_ends_as_the_best_of_its_answers(ends: list[str], best: str) -> None:
    (candidate,) = merge([Completion("a", finish=end) for end in ends], TITLE)
    assert candidate.finish == best


def test_generate_answers_that_name_no_label_are_told_apart_from_those_that_did_not_come(
    person: Make,
) -> None:
    records = [Record(f"f {i}", str(1 + i % 5), "film_rating", id=str(i)) for i in range(8)]
    unread = person(records, llm=Ending(*[("no idea", "stop")] * 7, ("4", "stop")))
    assert unread.generate("a film", task="film_rating").notes == (
        "7 of 8 answers name none of the 5 of film_rating",
    )
    short = person(records, llm=Ending(("4", "stop"), ("4", "stop"), ("no idea", "stop")))
    assert short.generate("a film", task="film_rating").notes == (
        "3 of 8 candidates arrived", "1 of 8 answers names none of the 5 of film_rating",
    )  # fmt: skip
