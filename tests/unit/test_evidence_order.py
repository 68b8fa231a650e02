"""Evidence is oldest first, whichever part of it was bought and which was chosen."""

from __future__ import annotations

import numpy as np
import pytest
from learned_titles import TASK, learned_from, put, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge.personalizer import Personalizer
from hydra_edge.reasons import EARLIER

POOLS, CHOICES = 12, 10


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def taught(make: Make, monkeypatch: pytest.MonkeyPatch, moment: int) -> Personalizer:
    """Return a person with pools of all records but two, and choices made at a moment.

    The LLM's first answers are as they are chosen, and nothing like the records.
    """
    p = make(records(POOLS + 2))
    for i in range(2, POOLS + 2):
        put(p, f"r{i}", "A Study")
    for i in range(CHOICES):
        made = p.generate(f"a text about {TOPICS[i % 4]} today", task=TASK, n=4)
        p.choose(generation_id=made.id, text="A Study", keep=False)
    monkeypatch.setattr("hydra_edge.evidence.moments_of", lambda _s, _h, made: [moment] * len(made))
    return p


def test_choices_made_before_the_records_are_judged_by_the_records(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = taught(person, monkeypatch, moment=1)
    assert learned_from(p).of_pool.tolist() == list(range(CHOICES, CHOICES + POOLS))
    adapter = p.fit_head(TASK, use_llm=False).roles[1]
    judged = p.store.head(TASK, "adapter").report
    rows = {row.name: row for row in adapter.rows}
    half = (POOLS + CHOICES) // 2
    assert (judged["held_out"], rows["shared head"].n, rows["shared head"].note) == (half, half, "")
    assert rows["shared head"].utility == pytest.approx(judged["utility"]["shared"])
    assert rows["my head"].utility == pytest.approx(judged["utility"]["personal"])


def test_choices_made_after_the_records_are_judged_and_the_rows_say_so(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = taught(person, monkeypatch, moment=POOLS + 2)
    found = learned_from(p)
    assert found.of_pool.tolist() == list(range(POOLS))
    targets = found.groups.take(np.arange(POOLS, POOLS + CHOICES)).targets
    assert targets is not None
    assert set(targets.tolist()) == {0.0, 1.0}, "picks"
    last = p.fit_head(TASK, use_llm=False).roles[1].rows[3]
    assert (last.n, last.note) == (1, ""), "one record's is in the later half"
    for place in range(2):  # two choices more, and none is
        made = p.generate(f"a text about {TOPICS[place]} again", task=TASK, n=4)
        p.choose(generation_id=made.id, text="A Study", keep=False)
    last = p.fit_head(TASK, use_llm=False).roles[1].rows[3]
    assert (last.n, last.note) == (POOLS, EARLIER)
