"""What fits learn from pools: an LLM's answers to the user's own records, paid for once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from filled_store import put_choice
from learned_titles import TASK, evidence, learned_from, put, records, titles
from title_writer import Make, people

from hydra_edge.errors import ContextLengthError
from hydra_edge.evidence import adapter_evidence, kept_of_choices
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def test_a_pool_bought_before_its_record_was_kept_of_a_choice_counts_no_more(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1)
    p.store.put_pool(
        "k", task=TASK, model="scripted", query_id=f"choice-{generation.id}", record_ids=("r1",),
        completions=(Completion("A Study"), Completion("speech: study 7")),
    )  # fmt: skip
    assert evidence(p) == 1


def test_an_answer_an_application_kept_is_asked_about_as_any_record(person: Make) -> None:
    """It was chosen from nothing, so that its choice teaches nothing."""
    p = person(records(12))
    p.add([Record("a text about speech", "speech: my own", TASK, id="own", time=50.0)])
    put_choice(
        p.store, "g", TASK, "a text about speech", candidates=(), text="speech: my own",
        record_id="own",
    )  # fmt: skip
    assert kept_of_choices(p.engine, p.engine.history(p.engine.task(TASK))) == set()
    p.fit_head(TASK, calls=100)
    assert "own" in {pool.query_id for pool in p.store.pools(TASK, purpose="pool")}


def test_a_record_answered_by_two_llms_counts_once(person: Make) -> None:
    p = person()
    made = p.fit_head(TASK, calls=100).pools_made
    for pool in p.store.pools(TASK, purpose="pool"):
        p.store.put_pool(
            f"{pool.key}-again", task=TASK, model="another", query_id=pool.query_id,
            record_ids=pool.record_ids, completions=pool.completions,
        )  # fmt: skip
    assert len(p.store.pools(TASK, purpose="pool")) == 2 * made
    assert evidence(p) == made > 0


def test_pools_of_another_llm_teach_no_head_for_this_one(person: Make) -> None:
    p = person(records(12))
    put(p, "r8", "A Study", "r1")
    put(p, "r9", "A Study", "r1", model="another")
    history = p.engine.history(p.engine.task(TASK))
    count = {m: len(adapter_evidence(p.engine, history, m).pools.items)
             for m in ("scripted", "another", None)}  # fmt: skip
    assert count == {"scripted": 1, "another": 1, None: 2}


def test_progress_is_told_of_pools(person: Make) -> None:
    p = person(records(12))
    for name in ("r8", "r9"):
        put(p, name, "A Study", "r1")
    told: list[tuple[str, int, int]] = []
    history = p.engine.history(p.engine.task(TASK))
    adapter_evidence(p.engine, history, None, progress=lambda *at: told.append(at))
    assert told == [("pools", 2, 2)]


def test_plain_answers_that_were_shown_a_later_record_are_compared_with_nothing(
    person: Make,
) -> None:
    p = person(records(12))
    for name in ("r8", "r9"):
        put(p, name, "A Study", "r1")
    put(p, "r8", "speech: study 9", "r9", purpose="rag")
    put(p, "r9", "speech: study 9", "r8", purpose="rag")
    data = learned_from(p).pools
    assert np.isnan(data.rag).tolist() == [True, False]


def test_answers_to_records_that_are_there_no_more_are_compared_with_nothing(
    person: Make,
) -> None:
    p = person(records(12))
    put(p, "r9", "A Study", "gone")
    for purpose in ("pool", "zero", "rag"):
        put(p, "gone", "A Study", purpose=purpose)
    data = learned_from(p).pools
    assert len(data.items) == 1
    assert np.isnan([*data.zero, *data.rag]).all()


def test_a_record_with_plain_answers_alone_is_still_asked_about(person: Make) -> None:
    p = person(records(12))
    for purpose in ("zero", "rag"):
        put(p, "r11", "A Study", purpose=purpose)
    p.fit_head(TASK, calls=100)
    assert "r11" in {pool.query_id for pool in p.store.pools(TASK, purpose="pool")}


def test_report_of_answers_is_of_the_later_half_alone(person: Make) -> None:
    p = person(records(12))
    truth = {r.id: r.output for r in records(12)}
    names = [f"r{i}" for i in range(2, 12)]
    for place, name in enumerate(names):
        right = truth[name] if place >= len(names) // 2 else "nothing of the kind"
        for purpose in ("pool", "zero", "rag"):
            put(p, name, right, purpose=purpose)
    rows = p.fit_head(TASK, use_llm=False).roles[1].rows
    assert [(row.utility, row.n) for row in rows[:2]] == [(pytest.approx(1.0), 5)] * 2


def test_records_with_the_same_input_each_get_the_pool_paid_for_once(
    person: Make,
    scripted,
) -> None:
    same = [Record("the same text", f"title {i}", TASK, id=f"s{i}", time=100.0 + i)
            for i in range(2)]  # fmt: skip
    # Neither sees the other: both are asked with the four records that were there before.
    llm = scripted(titles)
    p = person([*records(4), *same], llm=llm, records=0)
    report = p.fit_head(TASK, calls=1000)
    pools = p.store.pools(TASK, purpose="pool")
    assert len({pool.query_id for pool in pools}) == len(pools) == report.pools_made == 4
    assert sum(prompt.query == "the same text" for prompt in llm.prompts) == 1
    again = p.fit_head(TASK, calls=1000)
    assert (again.pools_made, again.llm_calls) == (0, 0)


def test_texts_too_long_for_the_llm_do_not_end_the_buying(person: Make, scripted) -> None:
    class Small(scripted):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if "endless" in prompt.query:
                raise ContextLengthError("no room")
            return list(super().complete(prompt, **options))

    long = [Record(f"endless text {i}", "x", TASK, id=f"l{i}", time=100.0 + i) for i in range(5)]
    report = person([*records(), *long], llm=Small(titles)).fit_head(TASK, calls=100)
    assert report.pools_made > 0
    assert any("are longer than scripted has room for" in note for note in report.notes)


def test_pool_of_a_prompt_that_was_cut_names_the_records_that_had_room(
    person: Make, scripted
) -> None:
    class Narrow(scripted):
        def complete(self, prompt: Prompt, **options: object) -> list[Completion]:
            if len(prompt.shots) > 1:
                raise ContextLengthError("no room")
            return list(super().complete(prompt, **options))

    p = person(records(12), llm=Narrow(titles))
    p.fit_head(TASK, calls=30)
    pools = p.store.pools(TASK, purpose="pool")
    assert pools
    assert {len(pool.record_ids) for pool in pools} == {1}


def test_a_budget_below_one_record_says_so(person: Make) -> None:
    report = person().fit_head(TASK, calls=9)
    assert (report.pools_made, report.llm_calls) == (0, 0)
    assert any("one record takes 10 answers, more than the 9 allowed" in n for n in report.notes)


def test_a_fit_looks_at_the_latest_pools_only(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person(records(12))
    for name in ("r9", "r5", "r8", "r7"):  # which was bought last is of no account
        put(p, name, "A Study", "r1")
    put(p, "r5", "A Study", purpose="zero")
    put(p, "r8", "A Study", purpose="zero")
    seen: list[str] = []
    pool = p.engine.pool

    def noting(query: str, *given: object, **options: object) -> object:
        seen.append(query)
        return pool(query, *given, **options)

    monkeypatch.setattr(p.engine, "pool", noting)
    monkeypatch.setattr("hydra_edge.evidence.POOLS", 3)
    found = learned_from(p)
    texts = {r.id: r.input for r in records(12)}
    assert seen == [texts[name] for name in ("r7", "r8", "r9")]
    assert (len(found.pools.items), found.groups.n_groups) == (3, 3)
    assert np.isnan(found.pools.zero).tolist() == [True, False, True]


@pytest.mark.parametrize("said", [None, 1.0])
def test_pools_that_showed_what_is_now_later_are_asked_for_again(
    person: Make, said: float | None
) -> None:
    """Their source said no time before, or other ones."""
    untimed = [
        replace(r, time=said and said * i, source="jsonl:/h") for i, r in enumerate(records(10))
    ]
    p = person(untimed)
    first = p.fit_head(TASK, calls=40)
    assert first.pools_made
    p.add([replace(r, time=100.0 - i) for i, r in enumerate(untimed)])
    assert [r.id for r in p.store.records(task=TASK)] == [f"r{9 - i}" for i in range(10)]
    data = learned_from(p).pools
    place = {r.id: i for i, r in enumerate(p.store.records(task=TASK))}
    honest = [
        pool.query_id
        for pool in p.store.pools(TASK, purpose="pool")
        if all(place[shown] < place[pool.query_id] for shown in pool.record_ids)
    ]
    assert len(data.items) == len(honest) < first.pools_made
    assert p.fit_head(TASK, calls=40).pools_made
