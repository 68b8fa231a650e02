"""Utility: against the reference package, and where that one cannot go."""

from __future__ import annotations

import hashlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydra_edge import utility as utility_module
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.utility import (
    agreement_matrix,
    lcs_length,
    near,
    rating_agreement,
    relative_gain,
    text_agreement,
    tokens,
    utility,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from rouge_score import rouge_scorer

# Made with Python 3.11.
GOLDEN = "5b0c53932e0aae70744064b4ba4b91ba65fa6da561dcae473d3583c4e7a3696e"

WORDS = st.lists(
    st.sampled_from(["the", "a", "fix", "add", "test-case", "foo_bar", "v2.1", "Git", "push"]),
    max_size=12,
)


@given(WORDS, WORDS)
def test_text_agreement_ascii_equals_rouge_score(a: list[str], b: list[str]) -> None:
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"], use_stemmer=False)
    score = scorer.score(" ".join(b), " ".join(a))
    expected = (score["rouge1"].fmeasure + score["rougeL"].fmeasure) / 2
    assert text_agreement(" ".join(a), " ".join(b)) == pytest.approx(expected, abs=1e-12)


def slow_lcs(a: list[int], b: list[int]) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
            )
    return int(table[-1, -1])


@given(st.lists(st.integers(0, 3), max_size=80), st.lists(st.integers(0, 3), max_size=80))
def test_lcs_length_equals_the_textbook_table(a: list[int], b: list[int]) -> None:
    assert lcs_length([str(x) for x in a], [str(x) for x in b]) == slow_lcs(a, b)


def test_tokens_scripts_without_spaces_are_compared_by_character() -> None:
    assert tokens("修复 bug 了") == ["修", "复", "bug", "了"]
    assert text_agreement("修复错误", "修复问题") == pytest.approx(0.5)
    assert text_agreement("исправить ошибку", "исправить сбой") == pytest.approx(0.5)
    assert tokens("שלום עולם") == ["שלום", "עולם"]


def test_tokens_marks_belong_to_their_letter() -> None:
    assert tokens("हिन्दी, दिन!") == ["हिन्दी", "दिन"]
    assert text_agreement("दिन", "दान") == 0.0
    assert tokens("ภาษา ที่") == ["ภ", "า", "ษ", "า", "ที่"]
    assert tokens("မြန်မာ ភាសា") == ["မြ", "န်", "မာ", "ភា", "សា"]
    assert tokens("fu\u0308r q\u0308y") == ["f\u00fcr", "q\u0308y"]
    assert tokens("\u0308a ؟ كِتَاب") == ["a", "كِتَاب"]
    assert tokens("ดีmore ฿5 ที่5") == ["ดี", "more", "5", "ที่", "5"]
    assert tokens("3\ufe0f\u20e3 \u2764\ufe0f ok") == ["3", "ok"], "an emoji is no word"


def test_tokens_are_the_same_on_every_python() -> None:
    digest = hashlib.sha256()
    for plane in (0, 1, 2, 3, 14):  # of the others no Unicode has any letter
        letters = [chr(plane * 0x10000 + i) for i in range(0x10000)]
        text = "".join(f"{letter} E{letter}\u0301b " for letter in letters)
        digest.update("\n".join(tokens(text, None)).encode("utf-8", "surrogatepass"))
    assert digest.hexdigest() == GOLDEN


@pytest.mark.parametrize(
    "letter",
    [
        "\u0cf3", "\ua7cb", "\ua7dc", "\U00010efd", "\U00010d50", "\U00016d68", "\U0001e4d0",
        "\U0002ebf0", "\U000323b0",
    ],
)  # fmt: skip
def test_tokens_what_a_later_unicode_adds_is_no_letter(
    monkeypatch: pytest.MonkeyPatch, letter: str
) -> None:
    assert tokens(f"A{letter}b {letter} e{letter}\u0301") == ["a", "b", "e"]
    monkeypatch.setattr(utility_module, "_WORD", r"\S+")  # as where they are letters
    assert tokens(f"A{letter}b {letter} x") == ["a", "b", "x"]


def test_label_agreement_accents_in_either_form_are_one_label() -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    task = TaskSpec("mine", "label")
    assert utility(composed, apart, task) == 1.0
    assert agreement_matrix([composed, apart, "Bar"], task)[0].tolist() == [1.0, 1.0, 0.0]


def test_rating_agreement_reads_a_decimal_comma() -> None:
    assert rating_agreement("1,5", "1.5", 4.0) == 1.0
    assert rating_agreement("\u22121", "1", 4.0) == 0.5


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_near_is_nothing_where_a_rating_is_none_and_keeps_the_kind_of_number(kind) -> None:
    ratings = np.array([1.0, 3.0, 9.0, np.nan], dtype=kind)
    found = near(ratings, 1.0, 4.0)
    assert (found.tolist(), found.dtype) == ([1.0, 0.5, 0.0, 0.0], kind)
    assert near(np.nan, np.nan, 4.0) == 0.0


def test_text_agreement_texts_without_words_are_compared_exactly() -> None:
    assert text_agreement("👍", "👍 ") == 1.0
    assert text_agreement("👍", "👎") == 0.0
    assert text_agreement("", "") == 0.0


def test_tokens_long_text_is_cut_unless_asked_for_whole() -> None:
    text = "word " * 5000
    assert len(tokens(text)) == 2000
    assert len(tokens(text, None)) == 5000


def test_utility_by_kind() -> None:
    assert utility(" Sci-Fi ", "sci-fi", BUILTIN["movie_tag"]) == 1.0
    assert utility("", "sci-fi", BUILTIN["movie_tag"]) == 0.0
    assert utility("2", "4", BUILTIN["film_rating"]) == pytest.approx(0.5)
    assert utility("great", "4", BUILTIN["film_rating"]) == 0.0
    assert rating_agreement("9", "1", 4.0) == 0.0  # off the scale is not negative


def test_agreement_matrix_compares_texts_without_words_as_utility_does() -> None:
    answers = ["🎉", "👍", "🎉 ", "a word"]
    matrix = agreement_matrix(answers, TaskSpec("t"))
    for i, a in enumerate(answers):
        for j, b in enumerate(answers):
            assert matrix[i, j] == utility(a, b, TaskSpec("t"))


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("movie_tag", ["comedy", " Comedy ", "action", "ACTION", "sci-fi"]),
        ("film_rating", ["1", "2.0", "5", "4.5", "5.0", "3"]),
    ],
)
def test_agreement_matrix_of_a_closed_set_is_the_utility_of_each_pair(
    task: str, answers: list[str]
) -> None:
    matrix = agreement_matrix(answers, BUILTIN[task])
    pairs = [[utility(a, b, BUILTIN[task]) for b in answers] for a in answers]
    np.testing.assert_array_equal(matrix, np.array(pairs, dtype=np.float32))
    assert agreement_matrix([], BUILTIN[task]).shape == (0, 0)


def test_agreement_matrix_is_symmetric_with_ones() -> None:
    for task, answers in (("paper_title", ["a b", "b c", ""]), ("film_rating", ["1", "3", "5"])):
        matrix = agreement_matrix(answers, BUILTIN[task])
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(np.diag(matrix), np.ones(3))
    assert matrix[0, 1] == pytest.approx(0.5)


def test_relative_gain_by_kind() -> None:
    assert relative_gain(0.6, 0.5, BUILTIN["movie_tag"]) == pytest.approx(0.2)
    # Utility .8 and .7 on a five-point scale: MAE falls from 1.2 to 0.8, by a third.
    assert relative_gain(0.8, 0.7, BUILTIN["film_rating"]) == pytest.approx(1 / 3)
    assert relative_gain(0.1, 0.0, BUILTIN["movie_tag"]) == float("inf")
    assert relative_gain(0.0, 0.0, BUILTIN["movie_tag"]) == 0.0
    assert relative_gain(0.9, 1.0, BUILTIN["film_rating"]) == float("-inf")
