"""Merging samples into candidates: which answers are the same."""

from __future__ import annotations

from hydra_edge.adapter import merge
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion


def counts(name: str, answers: list[str]) -> dict[str, int]:
    merged = merge([Completion(text) for text in answers], BUILTIN[name])
    return {c.text: c.count for c in merged if c.count}


def test_a_rating_is_voted_for_however_its_number_is_written() -> None:
    assert counts("film_rating", ["4", "4.0", " 4 ", "5", "nine"]) == {"4": 3, "5": 1}


def test_a_label_is_voted_for_whatever_its_capitals_and_no_other_counts() -> None:
    assert counts("movie_tag", ["Action", "action ", "actions"]) == {"action": 2}


def test_free_texts_that_differ_in_capitals_are_two() -> None:
    assert counts("paper_title", ["A title", "a title", "A title "]) == {"A title": 2, "a title": 1}


def test_equal_answers_have_the_logprob_of_the_likeliest() -> None:
    said = [Completion("A title", logprob=p) for p in (-3.0, None, -1.0, -2.0)]
    assert [c.logprob for c in merge(said, BUILTIN["paper_title"])] == [-1.0]
