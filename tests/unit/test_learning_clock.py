"""Choices a head has learned from are told from later ones, whatever the clocks said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import numpy as np
import pytest
from learned_titles import TASK, learned_from, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge import choosing, learning


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def test_a_choice_dated_in_the_future_does_not_keep_later_ones_from_teaching(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    now = time.time
    with monkeypatch.context() as ahead:
        ahead.setattr("time.time", lambda: now() + 30 * 86400.0)
        p.choose(pick=1, keep=False)
    fitted = p.fit_head(TASK, use_llm=False).roles[1].version
    p.generate("a text about vision today", task=TASK)
    assert p.choose(pick=1, keep=False).head_version == fitted + 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock: so many seconds ahead."""
    now = time.time

    def set_ahead(seconds: float) -> None:
        monkeypatch.setattr("time.time", lambda: now() + seconds)

    return set_ahead


def test_choosing_the_same_again_after_the_clock_was_set_back_changes_nothing(
    person: Make, clock: Callable[[float], None]
) -> None:
    p = person(records(6))
    first, second = (p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2])
    clock(3600.0)
    p.choose(generation_id=first.id, pick=2, keep=False)
    clock(0.0)
    taught = p.choose(generation_id=second.id, pick=1, keep=False).head_version
    for _ in range(2):
        assert p.choose(generation_id=first.id, pick=2, keep=False).head_version == taught
    assert p.store.head(TASK, "adapter").n_queries == 2


def test_choices_after_a_fit_teach_though_the_clock_was_set_back(
    person: Make, clock: Callable[[float], None]
) -> None:
    p = person(records(6))
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS]
    clock(300 * 86400.0)
    p.choose(generation_id=made[0].id, pick=2, keep=False)
    p.fit_head(TASK, use_llm=False)
    clock(0.0)
    for generation in made[1:]:
        p.choose(generation_id=generation.id, pick=2, keep=False)
    assert p.store.head(TASK, "adapter").n_queries == 4


@pytest.mark.parametrize(("ahead", "queries"), [(-10.0, 2), (10.0, 1), (86400.0, 2)])
def test_a_head_fitted_by_an_earlier_release_is_told_from_later_choices_by_time(
    person: Make, clock: Callable[[float], None], ahead: float, queries: int
) -> None:
    """What it was fitted until is a time: none that is still to come."""
    p = person(records(6))
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    p.choose(generation_id=made[0].id, pick=2, keep=False)
    with p.store._db.writing() as connection:
        connection.execute(
            "UPDATE heads SET report = ?", (json.dumps({"choices_until": time.time() + ahead}),)
        )
    taken = choosing.take(p.engine, made[1].id, 1, None, "choices", keep=False)
    clock(60.0)  # until when 10 seconds ahead is past
    learning.learn_choice(p.engine, taken)
    assert p.store.head(TASK, "adapter").n_queries == queries


@pytest.mark.parametrize("until", [4e9, "soon", None])
def test_what_an_imported_head_says_of_choices_is_of_another_device(
    person: Make, until: object
) -> None:
    p, q = person(), person()
    p.fit_head(TASK, calls=100)
    raw = json.loads(p.export_head(TASK, "adapter"))
    raw["report"] |= {"choices_until": until, "origin": 7}
    version = q.import_head(json.dumps(raw)).version
    q.generate("a text about speech today", task=TASK)
    assert q.choose(pick=1, keep=False).head_version == version + 1


def test_what_was_chosen_last_is_learned_as_the_latest_though_the_clock_was_ahead_before(
    person: Make, clock: Callable[[float], None]
) -> None:
    """Answers that were kept then are dated after all that came since."""
    p = person(records(4))

    def take(ahead: float, n: int) -> None:
        for i in range(4):
            clock(ahead + i)
            p.generate(f"a text about {TOPICS[i]} today, one of {n}", task=TASK, n=n)
            p.choose(pick=1)

    take(400 * 86400.0, 4)
    take(0.0, 2)
    assert np.diff(learned_from(p).groups.offsets).tolist() == [4] * 4 + [2] * 4
