"""What stopping early saves: the course of a pool, the chance to be beaten, and the rules."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import bench.stopping
from bench.guard import BenchError
from bench.stopping import (
    Course,
    Moment,
    apply,
    chance_beaten,
    finished,
    finishes,
    measure,
    spread_without,
    trim,
    unlikely,
)
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion


def answer(tokens, zero_shot=False):
    return Completion(f"{tokens} tokens", tokens=tokens, zero_shot=zero_shot)


def course(user, *moments):
    return Course(user, tuple(Moment(*moment) for moment in moments))


def test_finishes_one_batch_shortest_first_and_all_written_at_once():
    assert finishes([answer(5), answer(2), answer(3)]) == [(1, 2, 6), (2, 3, 8), (0, 5, 10)]


def test_finishes_answers_without_records_begin_when_the_others_are_done():
    drawn = [answer(4), answer(9, zero_shot=True), answer(1), answer(2, zero_shot=True)]

    assert finishes(drawn) == [(2, 1, 2), (0, 4, 5), (3, 6, 9), (1, 13, 16)]


def test_finishes_stragglers_of_each_prompt_are_not_waited_for():
    drawn = [answer(4), answer(1), answer(9), answer(2, True), answer(5, True), answer(3, True)]

    assert finishes(drawn, 1) == [(1, 1, 3), (0, 4, 9), (3, 6, 15), (5, 7, 17)]


def test_finishes_two_answers_of_a_prompt_are_always_kept():
    assert finishes([answer(4), answer(1)], 2) == [(1, 1, 2), (0, 4, 5)]


def test_trim_takes_the_end_without_stragglers_or_the_full_one():
    short = Moment((0.0,), "x", 0.25, 3, 4)

    found = trim(1, [Course("a", COURSES[0].moments, {1: short}), COURSES[1]])

    assert found["utility_kept"] == pytest.approx(0.75)
    assert found["steps_saved"] == pytest.approx(0.3)


def test_chance_beaten_agrees_with_drawing_the_missing_answers():
    scores, spread = [0.0, 0.4, 1.5], 0.5
    squares = sum((s - np.mean(scores)) ** 2 for s in scores) + 2 * spread**2
    deviation = np.sqrt(squares / 4) * np.sqrt(1 + 1 / 3)
    drawn = np.random.default_rng(0).normal(np.mean(scores), deviation, (200_000, 4))

    expected = float((drawn.max(axis=1) > 1.5).mean())

    assert chance_beaten(scores, 4, spread) == pytest.approx(expected, abs=0.01)


def test_chance_beaten_falls_with_fewer_missing_and_a_better_best():
    few, many = (chance_beaten([0.0, 1.0], n, 1.0) for n in (1, 6))
    better = chance_beaten([0.0, 0.0, 3.0], 6, 1.0)

    assert 0.0 < few < many < 1.0
    assert better < chance_beaten([0.0, 0.0, 1.0], 6, 1.0)
    assert chance_beaten([0.0, 1.0], 0, 1.0) == 0.0
    assert chance_beaten([0.0, 0.0], 3, 0.0) == 0.0


COURSES = [
    course("a", ((1.0,), "x", 0.5, 2, 4), ((0.0, 1.0), "x", 0.5, 6, 8)),
    course("b", ((0.0,), "y", 0.2, 3, 6), ((0.0, 2.0), "z", 0.5, 4, 12)),
]


def test_apply_first_finished_keeps_and_saves_what_is_counted_by_hand():
    found = apply(finished(1), COURSES)

    assert found["utility_kept"] == pytest.approx(0.7)
    assert found["steps_saved"] == pytest.approx(0.5)
    assert found["tokens_saved"] == pytest.approx(0.5)
    assert found["same_choice"] == 0.5


def test_apply_answers_that_are_all_wrong_have_no_utility_to_keep():
    wrong = [course("a", ((1.0,), "x", 0.0, 2, 4), ((0.0, 1.0), "x", 0.0, 6, 8))]
    found = apply(finished(1), wrong)

    assert found["utility_kept"] is None
    assert found["tokens_saved"] == pytest.approx(0.5)


def measured(monkeypatch: pytest.MonkeyPatch, *courses: Course) -> tuple[dict[str, object], str]:
    out = io.StringIO()
    monkeypatch.setattr(bench.stopping, "cases", lambda _bench, _data: courses)
    monkeypatch.setattr(bench.stopping, "course_of", lambda course: course)
    data = SimpleNamespace(name="paper_title", spec=BUILTIN["paper_title"])
    of = SimpleNamespace(llm=SimpleNamespace(name="scripted"))
    return measure(of, [data], Console(file=out, width=120)), out.getvalue()


def test_measure_blank_answers_have_no_pool(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BenchError, match="paper_title has no pool to stop: got blank answers only"):
        measured(monkeypatch, Course("a", ()))


def test_measure_shows_what_does_not_exist_as_a_dash(monkeypatch: pytest.MonkeyPatch):
    figures, shown = measured(monkeypatch, course("a", ((1.0,), "x", 0.0, 2, 4)))
    rules = figures["tasks"]["paper_title"]["rules"]
    assert {shares["utility_kept"] for shares in rules.values()} == {None}
    assert shown.count(" - ") == len(rules)


def test_apply_rule_that_never_stops_changes_nothing():
    found = apply(unlikely(0.0), COURSES)

    assert found == {
        "utility_kept": 1.0, "steps_saved": 0.0, "tokens_saved": 0.0, "same_choice": 1.0,
    }  # fmt: skip


def test_spread_is_of_other_users_pools_only():
    assert spread_without(COURSES, "a") == pytest.approx(1.0)
    assert spread_without(COURSES, "b") == pytest.approx(0.5)
    assert spread_without(COURSES[:1], "a") == 0.0
