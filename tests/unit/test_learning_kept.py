"""Records kept of choices: one for each source, as private as what the answer was made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from learned_titles import TASK, records, titles
from title_writer import Make, people

from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


@pytest.mark.parametrize("pick", [1, 2])
def test_choosing_again_without_keeping_leaves_no_other_answer_behind(
    person: Make, pick: int
) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    count = p.store.count(TASK)
    kept = p.choose(pick=1).record_id
    assert p.choose(pick=pick, keep=False).record_id == kept
    assert p.store.get(kept or "").output == generation.candidates[pick - 1].text
    assert p.store.count(TASK) == count + 1
    p.fit_head(TASK, use_llm=False)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 1, "the record and its choice are one thing to learn from"


def test_what_another_source_kept_is_left_as_it_is(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    kept = p.choose(pick=1).record_id
    assert p.choose(pick=2, keep=False, source="app").record_id == kept
    assert p.store.get(kept or "").output == generation.candidates[0].text


@pytest.mark.parametrize(("pick", "records"), [(1, 1), (2, 2)])
def test_what_another_source_kept_otherwise_is_left_to_it(
    person: Make, pick: int, records: int
) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    count = p.store.count(TASK)
    kept = p.choose(pick=1).record_id
    mine = p.choose(pick=pick, source="app").record_id
    assert p.store.count(TASK) == count + records
    assert p.store.get(kept or "").output == generation.candidates[0].text
    assert p.store.get(mine or "").output == generation.candidates[pick - 1].text


def test_an_answer_made_from_private_records_is_kept_private(person: Make) -> None:
    for private in (True, False):
        p = person([replace(record, private=private) for record in records()])
        p.generate("a text about speech today", task=TASK)
        kept = p.choose(pick=1).record_id
        assert p.store.get(kept or "").private is private


def test_record_made_private_while_a_local_llm_writes_costs_no_answer(
    person: Make, scripted
) -> None:
    asked: list[Personalizer] = []

    def hiding(prompt: Prompt, n: int) -> list[str]:
        asked[0].store.set_private(prompt.record_ids, True)
        return titles(prompt, n)

    p = person(records(8), llm=scripted(hiding))
    asked.append(p)
    made = p.generate("a text about speech today", task=TASK)
    assert made.text
    assert all(p.store.get(r.record.id).private for r in made.records)


LABELS = ["work", "home"]


def diary(**last: object) -> list[Record]:
    """Twelve entries of work and home, and six of the clinic after them."""
    known = [
        Record(f"entry {i} of the {LABELS[i % 2]}", LABELS[i % 2], "diary", f"n{i}", float(i))
        for i in range(12)
    ]
    return [
        *known,
        *(
            Record(f"the clinic, visit {i}", "illness", "diary", f"p{i}", 20.0 + i, **last)
            for i in range(6)
        ),
    ]


@pytest.mark.parametrize("private", [True, False])
def test_a_label_known_from_private_records_only_is_kept_private(
    person: Make,
    scripted,
    private: bool,
) -> None:
    llm = scripted(lambda _prompt, n: ["work"] * n, is_remote=True)
    p = person(diary(private=private), llm)
    made = p.generate("the clinic, once more", task="diary", n=2)
    assert not any(r.record.private for r in made.records)
    place = [c.text for c in made.candidates].index("illness") + 1
    for choice in ({"pick": place}, {"text": "ILLNESS"}):
        kept = p.choose(generation_id=made.id, **choice).record_id
        assert p.store.get(kept or "").private is private
    p.generate("entry of the work", task="diary", n=2)
    assert p.store.get(p.choose(text="work").record_id or "").private is False
