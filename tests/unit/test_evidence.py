"""What heads learn from: each record and choice once, as things were then, while it is there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from title_writer import TOPICS, Make, people

from hydra_edge import fitting, learning
from hydra_edge.active import ActiveHead, prior_for
from hydra_edge.bundle import Bundle
from hydra_edge.config import Config
from hydra_edge.encoder import shared_encoder
from hydra_edge.errors import CancelledError, ConfigError, ContextLengthError
from hydra_edge.evaluate import Verdict
from hydra_edge.evidence import (
    AdapterEvidence,
    ChoiceItem,
    adapter_evidence,
    choice_item,
    helped_by_then,
    kept_of_choices,
    reranker_evidence,
)
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.reranker import proxy_data
from hydra_edge.store import StoredChoice
from hydra_edge.types import Completion, HeadState, Record

TASK = "paper_title"


def records(n: int = 40) -> list[Record]:
    return [
        Record(
            f"a long text about {TOPICS[i % 4]} number {i}", f"{TOPICS[i % 4]}: study {i}", TASK,
            id=f"r{i}", time=float(i),
        )
        for i in range(n)
    ]  # fmt: skip


def titles(prompt: Prompt, n: int) -> list[str]:
    topic = next((t for t in TOPICS if t in prompt.query), "nothing")
    return (["A Study", f"{topic}: study 7", f"On {topic}", "Something Else"] * 4)[:n]


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def learned_from(p: Personalizer) -> AdapterEvidence:
    return adapter_evidence(p.engine, p.engine.history(p.engine.task(TASK)), None)


def evidence(p: Personalizer) -> int:
    """Count the queries an adapter is fitted on."""
    return learned_from(p).groups.n_groups


def test_a_choice_that_was_kept_is_learned_from_once(person: Make) -> None:
    p = person()
    for topic in TOPICS:
        p.generate(f"a text about {topic} today", task=TASK)
        p.choose(pick=1)
    report = p.fit_head(TASK, calls=200)
    assert report.pools_made > 0
    asked = {pool.query_id for pool in p.store.pools(TASK, purpose="pool")}
    assert not any(name.startswith("choice-") for name in asked)
    assert evidence(p) == report.pools_made + len(TOPICS)


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
    p.store.put_choice("g", TASK, "a text about speech", (), (), None, "speech: my own", "own")
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


def put(
    p: Personalizer,
    query_id: str,
    text: str,
    *shown: str,
    purpose: str = "pool",
    model: str = "scripted",
) -> None:
    """Store an answer to a record as one that was bought."""
    p.store.put_pool(
        f"{purpose} {query_id}", task=TASK, model=model, query_id=query_id, record_ids=shown,
        purpose=purpose,
        completions=[Completion(text, greedy=True), Completion("Something Else")],
    )  # fmt: skip


def test_pools_of_another_llm_teach_no_head_for_this_one(person: Make) -> None:
    p = person(records(12))
    put(p, "r8", "A Study", "r1")
    put(p, "r9", "A Study", "r1", model="another")
    history = p.engine.history(p.engine.task(TASK))
    count = {m: len(adapter_evidence(p.engine, history, m).pools.items)
             for m in ("scripted", "another", None)}  # fmt: skip
    assert count == {"scripted": 1, "another": 1, None: 2}


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


def test_records_forgotten_by_another_program_end_the_buying(person: Make, scripted) -> None:
    asked: list[Personalizer] = []

    def forgetful(prompt: Prompt, n: int) -> list[str]:
        asked[0].store.forget(["r39"])
        return titles(prompt, n)

    llm = scripted(forgetful)
    p = person(llm=llm)
    asked.append(p)
    report = p.fit_head(TASK, calls=1000)
    assert report.pools_made == 0
    assert any("changed meanwhile" in note for note in report.notes)
    assert p.store.pools(TASK) == []
    assert len(llm.prompts) == 1


def test_a_choice_that_was_not_kept_does_not_see_what_came_later(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1, keep=False)
    (choice,) = p.store.choices(TASK)
    tau = prior_for(p.bundle, p.engine.task(TASK), "adapter").tau

    def features() -> np.ndarray:
        return choice_item(p.engine, p.engine.history(p.engine.task(TASK)), choice, tau).features

    before = features()
    p.add([Record(generation.query, generation.text, TASK, id="own", time=choice.time + 1.0)])
    # How rare words are is told of the whole history; nothing else of the later record is known.
    np.testing.assert_allclose(features(), before, atol=2e-3)


def test_a_choice_does_not_know_records_without_a_time_that_were_added_after_it(
    person: Make,
) -> None:
    p = person([replace(r, time=None) for r in records(6)])
    generation = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1, keep=False)
    p.add([Record(generation.query, generation.text, TASK, id="own")])
    (choice,) = p.store.choices(TASK)
    seen: list[int] = []
    pool, tau = p.engine.pool, prior_for(p.bundle, p.engine.task(TASK), "adapter").tau

    def noting(query: str, vector: object, candidates: object, shown: object, past: object,
               *rest: object, **options: object) -> object:  # fmt: skip
        seen.append(len(past))
        return pool(query, vector, candidates, shown, past, *rest, **options)

    p.engine.pool = noting
    choice_item(p.engine, p.engine.history(p.engine.task(TASK)), choice, tau)
    assert seen == [6]


def test_how_records_helped_is_known_only_afterwards(person: Make) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    p.choose(pick=1)
    p.generate("a text about vision today", task=TASK)
    p.choose(text="vision: quite another one", keep=False)
    first, second = p.store.choices(TASK)
    history = p.engine.history(p.engine.task(TASK))
    kept = history.place[first.record_id or ""]
    assert kept == len(history) - 1
    known = helped_by_then(p.store, history, [second, first])
    assert known(0) == {}
    assert known(kept) == {}, "its own choice is the query"
    after = known(len(history))
    assert {name: after[name] for name in first.record_ids} == {
        name: (1 + (name in second.record_ids), 1) for name in first.record_ids
    }
    assert set(after) == {*first.record_ids, *second.record_ids}


def save_ranking(p: Personalizer, **weights: float) -> None:
    """Have a head of the user's own rank records; features that are not named weigh nothing."""
    names = p.engine.features["reranker"].names
    weight = np.array([weights.get(name, 0.0) for name in names], dtype=np.float32)
    precision = np.eye(len(names), dtype=np.float32)
    p.store.save_head(
        HeadState(
            TASK, "reranker", p.bundle.base_id, names, weight, precision, "personal", 9, 1.0,
            {"kind": "text"},
        )
    )  # fmt: skip


def test_records_that_helped_are_evidence_of_a_fit_and_of_a_ranking(person: Make) -> None:
    p = person(records(8))
    made = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1, keep=False)
    shown = {r.record.id for r in made.records}
    save_ranking(p, helped=5.0)
    ranked = p.rank("a text about speech today", task=TASK, k=len(shown)).records
    assert {r.record.id for r in ranked} == shown
    (choice,) = p.store.choices(TASK)
    p.add([replace(r, id=f"{r.id}-later", input=f"{r.input} again", time=choice.time + 1.0 + i)
           for i, r in enumerate(records(8))])  # fmt: skip
    data = reranker_evidence(p.engine, p.engine.history(p.engine.task(TASK)), shown=4)
    helped = data.groups.features[:, p.engine.features["reranker"].names.index("helped")]
    assert len(np.unique(helped)) > 1, "those that were shown, and others"


def test_how_far_records_are_trusted_does_not_follow_the_own_head(person: Make) -> None:
    p = person(records(8))
    query = "a text about speech"

    def trust() -> np.ndarray:
        history = p.engine.history(p.engine.task(TASK))
        vector, lexical = p.engine.encode_query(query), p.engine.lexical(history)
        return p.engine.pool(query, vector, (), (), history, lexical).trust

    before = trust()
    save_ranking(p, **dict.fromkeys(p.engine.features["reranker"].names, 5.0))
    assert p.rank(query, task=TASK).head.switch == "personal"
    np.testing.assert_array_equal(trust(), before)


def test_choosing_the_same_again_changes_nothing(person: Make) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    versions = [p.choose(pick=2).head_version for _ in range(3)]
    assert versions == [versions[0]] * 3
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 1


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


def test_choosing_an_answer_nobody_remembers_names_it(person: Make) -> None:
    p = person()
    with pytest.raises(ConfigError, match="There is no answer to choose"):
        p.choose(pick=1)
    p.generate("a text about speech today", task=TASK)
    with pytest.raises(ConfigError, match="There is no answer 'abc' to choose from"):
        p.choose(generation_id="abc", pick=1)


def test_choosing_another_instead_leaves_no_trace_of_the_first(person: Make) -> None:
    once, twice = person(), person()
    for p in (once, twice):
        p.generate("a text about speech today", task=TASK)
    twice.choose(pick=1, keep=False)
    for p in (once, twice):
        p.choose(pick=3, keep=False)
        p.fit_head(TASK, use_llm=False)
    heads = [p.store.head(TASK, "adapter") for p in (once, twice)]
    np.testing.assert_allclose(heads[0].weight, heads[1].weight, atol=1e-5)
    twice.choose(pick=2, keep=False)
    changed = twice.store.head(TASK, "adapter")
    assert changed is not None
    assert changed.n_queries == 1


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


def test_a_rating_written_otherwise_is_the_candidate_it_is(
    person: Make,
    scripted,
) -> None:
    rated = [Record(f"film {i}", str(i % 5 + 1), "film_rating", f"f{i}", float(i))
             for i in range(20)]  # fmt: skip
    p = person(rated, scripted(lambda _prompt, n: ["4"] * n))
    made = p.generate("film 7", task="film_rating", n=2)
    p.choose(generation_id=made.id, text="4.0")
    (choice,) = p.store.choices()
    assert choice.picked == [c.text for c in made.candidates].index("4")


def test_an_edited_answer_teaches_toward_the_candidate_it_is_like(person: Make) -> None:
    p = person(records(6))
    made = p.generate("a text about speech today", task=TASK)
    like = [c.text for c in made.candidates].index("speech: study 7")
    p.choose(text="speech: study 8", keep=False)
    (choice,) = p.store.choices(TASK)
    assert choice.picked is None
    task = p.engine.task(TASK)
    tau = prior_for(p.bundle, task, "adapter").tau
    item = choice_item(p.engine, p.engine.history(task), choice, tau)
    assert item is not None
    assert int(item.target.argmax()) == like
    assert item.target[like] > 1.5 / len(item.target)


def test_a_choice_whose_step_was_interrupted_is_learned_when_it_is_made_again(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    with monkeypatch.context() as patch:
        patch.setattr(learning, "choice_item", None)
        with pytest.raises(TypeError):
            p.choose(pick=2)
    assert p.store.head(TASK, "adapter") is None
    p.choose(pick=2)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 1
    p.choose(pick=2)
    assert p.store.head(TASK, "adapter").version == head.version


def test_a_choice_interrupted_with_a_head_there_is_learned_when_it_is_made_again(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person(records(6))
    for topic in TOPICS[:2]:
        p.generate(f"a text about {topic} today", task=TASK)
        if topic == TOPICS[0]:
            p.choose(pick=1, keep=False)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    with monkeypatch.context() as patch:
        patch.setattr(learning, "choice_item", None)
        with pytest.raises(TypeError):
            p.choose(pick=2, keep=False)
    p.choose(pick=2, keep=False)
    again = p.store.head(TASK, "adapter")
    assert again is not None
    assert again.n_queries == head.n_queries + 1


def test_a_choice_made_while_a_step_is_prepared_is_not_lost(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs choose at once: each step starts from the other's head."""
    p = person()
    first, second = (p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2])
    prepare = learning.choice_item

    def meanwhile(*given: object) -> ChoiceItem:
        item = prepare(*given)
        monkeypatch.setattr(learning, "choice_item", prepare)
        p.choose(generation_id=second.id, pick=2)
        return item

    monkeypatch.setattr(learning, "choice_item", meanwhile)
    p.choose(generation_id=first.id, pick=1)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 2


def test_a_choice_made_while_a_head_is_fitted_is_not_lost(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    first, second = (p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2])
    p.choose(generation_id=first.id, pick=1)
    judge = fitting.judge

    def meanwhile(*given: object, **options: object) -> Verdict:
        if options["top"] == 1:
            monkeypatch.setattr(fitting, "judge", judge)
            p.choose(generation_id=second.id, pick=2)
        return judge(*given, **options)

    monkeypatch.setattr(fitting, "judge", meanwhile)
    p.fit_head(TASK, use_llm=False)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 2


def test_a_fit_ends_though_choices_are_made_all_the_time(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS]
    p.choose(generation_id=made[0].id, pick=1, keep=False)
    waiting, judge = iter(made[1:]), fitting.judge

    def meanwhile(*given: object, **options: object) -> Verdict:
        if options["top"] == 1:
            p.choose(generation_id=next(waiting).id, pick=2, keep=False)
        return judge(*given, **options)

    monkeypatch.setattr(fitting, "judge", meanwhile)
    report = p.fit_head(TASK, use_llm=False).roles[1]
    assert next(waiting, None) is None
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert (head.version, head.n_queries) == (report.version, fitting.MAX_ATTEMPTS)


def test_a_choice_forgotten_while_its_step_is_prepared_leaves_no_head(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    made = p.generate("a text about speech today", task=TASK)
    prepare = learning.choice_item

    def meanwhile(*given: object) -> ChoiceItem:
        item = prepare(*given)
        p.forget(made.records[0].record.id)
        return item

    monkeypatch.setattr(learning, "choice_item", meanwhile)
    with pytest.raises(CancelledError, match="forgotten meanwhile"):
        p.choose(generation_id=made.id, pick=1)
    assert p.store.heads() == []
    assert p.store.choices() == []


def test_choice_erased_by_another_program_while_it_is_learned_teaches_nothing(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    prepare = learning.choice_item

    def meanwhile(*given: object) -> ChoiceItem:
        item = prepare(*given)
        p.store.clear_log(choices=True)
        return item

    monkeypatch.setattr(learning, "choice_item", meanwhile)
    with pytest.raises(CancelledError, match="forgotten meanwhile"):
        p.choose(pick=2, keep=False)
    assert p.store.heads() == []


def test_a_head_fitted_anew_for_another_choice_says_why_it_serves(person: Make) -> None:
    p = person()
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1)
    p.choose(generation_id=made[0].id, pick=3)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.report["reason"] == learning.UPDATED


def test_a_head_of_another_kind_of_answers_does_not_serve(person: Make) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    p.choose(pick=1)
    state = p.store.head(TASK, "adapter")
    assert state is not None
    task, features = p.engine.task(TASK), p.engine.features["adapter"]
    personal = replace(state, switch="personal")
    assert ActiveHead.of(p.bundle, task, features, personal).info.switch == "personal"
    label = replace(task, kind="label", labels=("a", "b"))
    other = ActiveHead.of(p.bundle, label, features, personal)
    assert other.info.switch != "personal"
    assert "another kind of answers" in other.info.reason


def test_a_fit_that_shows_no_record_is_judged_all_the_same(person: Make) -> None:
    report = person(records=0).fit_head(TASK, use_llm=False)
    assert report.roles[0].n_queries > 0


def test_a_fit_is_judged_by_as_many_records_as_a_prompt_shows(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, tops = fitting.judge, []

    def noting(*given: object, **options: object) -> Verdict:
        tops.append(options["top"])
        return judge(*given, **options)

    monkeypatch.setattr(fitting, "judge", noting)
    person(records(12), records=3).fit_head(TASK, use_llm=False)
    assert tops == [3]


@pytest.mark.parametrize(
    ("name", "value"),
    [("candidates", 0), ("records", -1), ("temperature", -0.1), ("timeout_s", 0.0),
     ("threads", -1), ("temperature", float("nan"))],
)  # fmt: skip
def test_settings_below_their_least_value_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* cannot be used; expected .* or more"):
        replace(Config(), **{name: value})


def test_choosing_again_takes_the_step_before_back(person: Make) -> None:
    once, twice = person(), person()
    for p in (once, twice):
        p.fit_head(TASK, calls=100)
        p.generate("a text about speech today", task=TASK)
    switch = twice.store.head(TASK, "adapter").switch
    twice.choose(pick=1, keep=False)
    for p in (once, twice):
        p.choose(pick=3, keep=False)
    heads = [p.store.head(TASK, "adapter") for p in (once, twice)]
    np.testing.assert_array_equal(heads[0].weight, heads[1].weight)
    assert [head.n_queries for head in heads] == [heads[0].n_queries] * 2
    assert [head.switch for head in heads] == [switch] * 2


def test_choosing_again_later_leaves_the_gates_last_word(person: Make) -> None:
    p = person()
    first = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1, keep=False)
    p.generate("a text about vision today", task=TASK)
    p.choose(pick=1, keep=False)
    before = p.store.head(TASK, "adapter")
    p.choose(generation_id=first.id, pick=3, keep=False)
    after = p.store.head(TASK, "adapter")
    assert before is not None
    assert after is not None
    assert (after.switch, after.n_queries) == (before.switch, 2)


def test_a_step_taken_back_by_a_fit_leaves_the_gates_last_word_whatever_it_was(
    person: Make,
) -> None:
    p = person(records(6))
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1, keep=False)
    head = p.store.head(TASK, "adapter")
    assert head is not None
    p.store.save_head(replace(head, switch="personal"))
    p.choose(generation_id=made[0].id, pick=3, keep=False)
    after = p.store.head(TASK, "adapter")
    assert after is not None
    assert (after.switch, after.n_queries) == ("personal", 2)


def test_choosing_again_keeps_what_an_imported_head_knows(person: Make) -> None:
    p, q = person(), person()
    p.fit_head(TASK, calls=100)
    state = p.store.head(TASK, "adapter")
    known = state.weight.copy()
    known[0] += 3.0
    p.store.save_head(replace(state, weight=known, n_queries=500, switch="personal"))
    q.import_head(p.export_head(TASK, "adapter"))
    made = [q.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        q.choose(generation_id=generation.id, pick=1, keep=False)
    q.choose(generation_id=made[0].id, pick=3, keep=False)
    head = q.store.head(TASK, "adapter")
    assert (head.n_queries, head.switch) == (503, "personal")
    assert abs(head.weight[0] - known[0]) < 0.5


def test_choosing_again_after_a_rollback_does_not_bring_back_what_was_rolled_back(
    person: Make,
) -> None:
    p = person()
    p.fit_head(TASK, calls=30)
    first = p.store.head(TASK, "adapter")
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1, keep=False)
    p.store.rollback_head(TASK, "adapter", first.version)
    p.choose(generation_id=made[0].id, pick=3, keep=False)
    assert p.store.head(TASK, "adapter").n_queries == first.n_queries + 1


def test_a_choice_a_fit_has_seen_before_its_step_is_learned_once(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    p.choose(generation_id=made[0].id, pick=1, keep=False)
    prepare = learning.choice_item

    def fitting_first(*given: object) -> ChoiceItem | None:
        monkeypatch.setattr(learning, "choice_item", prepare)
        p.fit_head(TASK, use_llm=False)
        return prepare(*given)

    monkeypatch.setattr(learning, "choice_item", fitting_first)
    p.choose(generation_id=made[1].id, pick=2, keep=False)
    assert p.store.head(TASK, "adapter").n_queries == 2
    later = p.generate("a text about vision today", task=TASK)
    p.choose(generation_id=later.id, pick=1, keep=False)
    assert p.store.head(TASK, "adapter").n_queries == 3


def test_a_step_taken_back_by_a_fit_learns_from_the_answers_of_the_same_llm(
    person: Make,
) -> None:
    p = person(records(12))
    for name in ("r5", "r6", "r7"):
        put(p, name, "A Study", "r1", model="another")
    put(p, "r8", "A Study", "r1")
    p.fit_head(TASK, calls=0)
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1, keep=False)
    for _ in range(2):  # a fit that was fitted again knows it, too
        head = p.store.head(TASK, "adapter")
        assert (head.report["model"], head.n_queries) == ("scripted", 1 + len(made))
        p.choose(generation_id=made[0].id, pick=3, keep=False)
    imported = replace(head, report=head.report | {learning.IMPORTED: True})
    assert (fitting.model_of(head), fitting.model_of(imported)) == ("scripted", None)


def test_a_step_taken_back_by_a_fit_leaves_no_head_of_records_forgotten_meanwhile(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    p.fit_head(TASK, calls=100)
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1, keep=False)
    shown = {r.record.id for generation in made for r in generation.records}
    gone = next(r.id for r in p.store.records(task=TASK) if r.id not in shown)
    evidence, seen = fitting.adapter_evidence, []

    def forgetting(*given: object, **options: object) -> object:
        found = evidence(*given, **options)
        if not seen:
            seen.append(gone)
            p.store.forget([gone])
        return found

    monkeypatch.setattr(fitting, "adapter_evidence", forgetting)
    p.choose(generation_id=made[0].id, pick=3, keep=False)
    head = p.store.head(TASK, "adapter")
    assert not head.stale
    assert gone not in {r.id for r in p.store.records(task=TASK)}
    assert head.created > max(h.created for h in p.store.heads(TASK) if h.stale)


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


def test_a_step_taken_back_by_a_fit_that_finds_nothing_left_is_told_so(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS[:2]]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1, keep=False)
    shown = {r.record.id for generation in made for r in generation.records}
    evidence = fitting.adapter_evidence

    def forgetting(*given: object, **options: object) -> object:
        monkeypatch.setattr(fitting, "adapter_evidence", evidence)
        found = evidence(*given, **options)
        p.store.forget(sorted(shown))
        return found

    monkeypatch.setattr(fitting, "adapter_evidence", forgetting)
    with pytest.raises(CancelledError, match="got no head for paper_title any more"):
        p.choose(generation_id=made[0].id, pick=3, keep=False)
    assert p.store.choices() == []
    assert all(head.stale for head in p.store.heads(TASK))


def test_a_fit_looks_at_the_latest_choices_only(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person()
    for topic in TOPICS:
        p.generate(f"a text about {topic} today", task=TASK)
        p.choose(pick=1, keep=False)
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr("hydra_edge.evidence.CHOICES", 3)
    history = p.engine.history(p.engine.task(TASK))
    found = adapter_evidence(p.engine, history, None, progress=lambda *at: told.append(at))
    assert found.groups.n_groups == 3
    assert told == [("choices", 3, 3)]


def test_a_fit_looks_at_the_latest_choices_not_the_first(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person(records(6))
    for topic in TOPICS:
        p.generate(f"a text about {topic} today", task=TASK)
        p.choose(pick=1, keep=False)
    seen: list[str] = []

    def noting(engine: object, history: object, choice: StoredChoice, tau: float) -> object:
        seen.append(choice.query)
        return choice_item(engine, history, choice, tau)

    monkeypatch.setattr("hydra_edge.evidence.CHOICES", 3)
    monkeypatch.setattr("hydra_edge.evidence.choice_item", noting)
    learned_from(p)
    assert seen == [f"a text about {topic} today" for topic in TOPICS[1:]]


def test_a_fit_after_a_text_task_became_a_rating_leaves_its_choices_out(
    person: Make, scripted
) -> None:
    """What was taken then is no answer any more: neither a fit nor a step can use it."""
    notes = [Record(f"film {i}", f"I rate it {i % 5}", "my_films", id=f"n{i}") for i in range(4)]
    p = person(notes, scripted(lambda _prompt, n: [f"I rate it {i}" for i in range(n)]))
    made = [p.generate(f"film {i + 40}", task="my_films", n=4) for i in range(2)]
    p.choose(generation_id=made[0].id, pick=2, keep=False)
    p.add([Record(f"film {i}", str(1 + i % 5), "my_films", id=f"n{i}") for i in range(30)])
    assert p.task("my_films").kind == "rating"
    p.fit_head("my_films", use_llm=False)
    assert p.store.head("my_films", "reranker") is not None
    taught = p.choose(generation_id=made[1].id, pick=1, keep=False)
    assert taught.head_version is None, "it can teach nothing"
    assert p.forget("n29").records == 1


def test_a_pick_the_task_has_no_more_teaches_nothing_though_others_are_still_answers(
    person: Make, scripted
) -> None:
    notes = [Record(f"film {i}", f"I rate it {i % 5}", "my_films", id=f"n{i}") for i in range(4)]
    p = person(notes, scripted(lambda _prompt, n: ["I rate it 4", "4"][:n]))
    generation = p.generate("film 40", task="my_films", n=2)
    pick = 1 + [c.text for c in generation.candidates].index("I rate it 4")
    p.choose(pick=pick, keep=False)
    p.add([Record(f"film {i}", str(1 + i % 5), "my_films", id=f"n{i}") for i in range(30)])
    history = p.engine.history(p.engine.task("my_films"))
    assert history.task.kind == "rating"
    assert adapter_evidence(p.engine, history, None).groups.n_groups == 0


def test_a_pick_among_answers_of_equal_worth_is_learned_by_a_fit_too(
    person: Make, scripted
) -> None:
    """Answers that differ in capitals alone have the same words."""
    words = ["Handle the empty file", "handle the empty file."]
    p = person(llm=scripted(lambda _prompt, n: words[:n]))
    for i in range(12):
        made = p.generate(f"a text about search {i}", task=TASK, n=2)
        pick = 1 + [c.text for c in made.candidates].index(words[1])
        p.choose(generation_id=made.id, pick=pick, keep=False)
    p.fit_head(TASK, use_llm=False)
    shared = prior_for(p.bundle, p.engine.task(TASK), "adapter").mean
    assert np.abs(p.store.head(TASK, "adapter").weight - shared).max() > 0.05


def test_pools_that_showed_what_is_now_later_are_asked_for_again(person: Make) -> None:
    untimed = [replace(r, time=None) for r in records(10)]
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


def test_records_that_are_there_twice_are_judged_by_once(person: Make) -> None:
    """A twin under another id would show each query its own answer."""
    twins = [replace(r, id=f"{r.id}-again", time=r.time + 1000.0) for r in records()]
    once, twice = person(), person([*records(), *twins])
    rows = [p.fit_head(TASK, use_llm=False).roles[0].rows for p in (once, twice)]
    assert rows[0] == rows[1]
    assert twice.fit_head(TASK, calls=1000).pools_made == len(records()) - 2


def test_twins_of_the_latest_records_do_not_push_out_what_was_learned(person: Make) -> None:
    p = person(records(30))
    history = p.engine.history(p.engine.task(TASK))
    lexical, features = p.engine.lexical(history), p.engine.features["reranker"]
    before = proxy_data(features, history, lexical, limit=10)
    p.add([replace(r, id=f"{r.id}-again", time=r.time + 1000.0) for r in records(30)])
    history = p.engine.history(p.engine.task(TASK))
    after = proxy_data(features, history, p.engine.lexical(history), limit=10)
    np.testing.assert_array_equal(after.position, before.position)
    assert len(after.position) == 10


def test_records_that_are_all_the_same_teach_no_head(person: Make) -> None:
    same = [Record("a text", "a title", TASK, id=f"s{i}", time=float(i)) for i in range(5)]
    p = person(same)
    report = p.fit_head(TASK, use_llm=False).roles[0]
    assert report.reason == "fewer than three different records"
    assert p.store.heads() == []


def rated(n: int, wrong: int, answer: str = "4/5", *, private: bool = False) -> list[Record]:
    return [
        Record(f"film {i} of {TOPICS[i % 4]}", answer if i < wrong else str(i % 4 + 1),
               "film_rating", f"f{i}", float(i), private=private)
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("answer", ["4/5", "★★★★"])
def test_answers_a_closed_task_has_not_are_told_of_and_judged_by_nowhere(
    person: Make, scripted, answer: str
) -> None:
    llm = scripted(lambda _prompt, n: ["4"] * n)
    report = person(rated(20, 20, answer), llm).fit_head("film_rating", calls=100)
    assert report.notes == (
        f"20 of 20 answers are none of film_rating's, such as '{answer}'; they teach nothing. "
        "Give them as one of 1, 2, 3, 4, 5, or name another task.",
    )
    assert not any(row.n for role in report.roles for row in role.rows)
    assert report.roles[0].reason == "fewer than three different records with answers of the task"
    assert (report.llm_calls, llm.prompts) == (0, [])


def test_answers_a_closed_task_has_are_judged_beside_those_it_has_not(person: Make) -> None:
    p = person(rated(40, 10, private=True))
    report = p.fit_head("film_rating", use_llm=False)
    assert (
        "10 of 40 answers are none of film_rating's; they teach nothing. "
        "Give them as one of 1, 2, 3, 4, 5, or name another task."
    ) in report.notes
    assert report.roles[0].n_queries == 30
    assert p.engine.history(p.engine.task("film_rating")).queries.tolist() == list(range(10, 40))


def test_slips_among_answers_of_a_closed_task_are_not_worth_a_note(person: Make) -> None:
    notes = person(rated(40, 2)).fit_head("film_rating", use_llm=False).notes
    assert not any("answers are none" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "told"),
    [("แมวนอนบนโซฟา {}", 1), ("Кошка спит {}", 0), ("12.5 {}", 0), ("👍 {}", 0)],
)
def test_a_fit_says_that_the_base_knows_few_words_of_most_inputs(
    bundle: Bundle, text: str, told: int
) -> None:
    made = [Record(text.format(i), f"title {i}", TASK, f"r{i}", float(i)) for i in range(12)]
    with Personalizer.from_records(made, encoder=shared_encoder(bundle)) as p:
        notes = p.fit_head(TASK, use_llm=False).notes
        p.add([replace(r, input=f"a text about parser {r.id}") for r in made[:6]])
        of_half = p.fit_head(TASK, use_llm=False).notes
    assert sum("knows few or no words of 12 of the latest 12 inputs" in n for n in notes) == told
    assert not any("knows few" in note for note in of_half)


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
    taken = learning.take(p.engine, made[1].id, 1, None, "choices", keep=False)
    clock(60.0)  # until when 10 seconds ahead is past
    assert learning.learn_choice(p.engine, taken).n_queries == queries


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


def test_a_fit_for_many_records_shown_still_tells_heads_apart(person: Make) -> None:
    """The best 20 of 16 would be the same 16, whichever head chose."""
    report = person(records(120), records=20).fit_head(TASK, use_llm=False).roles[0]
    assert len({row.utility for row in report.rows}) > 1


def test_one_id_by_itself_is_not_taken_letter_by_letter(person: Make) -> None:
    p = person([Record(f"input {i}", f"output {i}", TASK, id=str(i)) for i in range(15)])
    assert p.forget("12").records == 1
    left = {record.id for record in p.store.records()}
    assert left == {str(i) for i in range(15)} - {"12"}


def test_a_fit_begins_anew_where_another_program_forgets_meanwhile(
    person: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = person()
    taken: list[str] = []
    proxy = fitting.reranker_evidence

    def forgetting(*args, **options):
        if not taken:
            taken.append("r20")
            p.store.forget(taken)
            p.store.get("r20")
        return proxy(*args, **options)

    monkeypatch.setattr(fitting, "reranker_evidence", forgetting)
    report = p.fit_head(TASK, use_llm=False)
    assert report.records == 39


def test_a_fit_drops_the_vectors_of_the_base_before(person: Make) -> None:
    p = person()
    p.store.put_vectors("earlier-base", {"0" * 64: np.ones(8, dtype=np.float16)})
    p.fit_head(TASK, use_llm=False)
    assert p.store.vectors(["0" * 64], "earlier-base") == {}


def test_a_pool_made_before_records_were_forgotten_is_not_kept(person: Make) -> None:
    p = person()
    before = p.store.revision().rewrites
    pool = {"task": TASK, "model": "m", "query_id": "r1", "record_ids": (), "completions": ()}
    assert p.store.put_pool("a", **pool, rewrites=before)
    p.store.forget(["r39"])
    assert not p.store.put_pool("b", **pool, rewrites=before)
    assert p.store.pool("b") is None


def test_a_fit_leaves_out_what_a_changed_habit_speaks_against(person: Make, scripted) -> None:
    """Pools of old records, then picks: all the short answer, then all the long one."""
    short = "Brief"
    long = "A much longer title that says everything about the whole work and more"

    def answers(_prompt: Prompt, n: int) -> list[str]:
        return [short, long, "Some Words in Between", "Some Other Words in Between"][:n]

    p = person(records(12), scripted(answers))
    p.fit_head(TASK, calls=40)

    def take(text: str, times: int) -> None:
        for i in range(times):
            made = p.generate(f"a text about {TOPICS[i % 4]} today {i}", task=TASK, n=4)
            pick = 1 + [c.text for c in made.candidates].index(text)
            p.choose(generation_id=made.id, pick=pick, keep=False)

    take(short, 40)
    before = p.fit_head(TASK, use_llm=False).roles[1]
    pools = len(learned_from(p).pools.items)
    assert pools
    assert before.n_queries == pools + 40
    assert "the earlier ones say otherwise" not in before.reason
    take(long, 20)
    after = p.fit_head(TASK, use_llm=False).roles[1]
    total = pools + 60
    assert 16 <= after.n_queries < 40
    assert f"latest {after.n_queries} of {total} queries" in after.reason
    assert {row.note for row in after.rows} == {
        "learned from your choices alone, not from answers to your own records"
    }
    kept = learned_from(p)
    assert (kept.pools.items, len(kept.pools.zero), len(kept.pools.rag)) == ([], 0, 0)
    assert kept.outdated == total - after.n_queries
    assert p.generate("a text about vision once more", task=TASK, n=4).text == long
    assert len(p.store.choices(TASK)) == 60, "they are left out, not lost"
