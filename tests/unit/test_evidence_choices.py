"""What fits learn from choices: each once, the latest, by what was known when it was made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from learned_titles import TASK, evidence, learned_from, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge.evidence import (
    ChoiceItem,
    adapter_evidence,
    choice_item,
    helped_by_then,
    moments_of,
    reranker_evidence,
)
from hydra_edge.heads import Groups
from hydra_edge.personalizer import Personalizer
from hydra_edge.population import prior_for
from hydra_edge.prompt import Prompt
from hydra_edge.reasons import LEFT_OUT
from hydra_edge.store import StoredChoice
from hydra_edge.types import HeadState, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def item_of(p: Personalizer, choice: StoredChoice) -> ChoiceItem:
    """Turn a choice into what a head learns from, by what was known when it was made."""
    task = p.engine.task(TASK)
    history = p.engine.history(task)
    (moment,) = moments_of(p.store, history, [choice])
    item = choice_item(p.engine, history, choice, prior_for(p.bundle, task, "adapter").tau, moment)
    assert item is not None
    return item


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


def test_a_choice_that_was_not_kept_does_not_see_what_came_later(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech today", task=TASK)
    p.choose(pick=1, keep=False)
    (choice,) = p.store.choices(TASK)

    def features() -> np.ndarray:
        return item_of(p, choice).features

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
    pool = p.engine.pool

    def noting(query: str, vector: object, candidates: object, shown: object, past: object,
               *rest: object, **options: object) -> object:  # fmt: skip
        seen.append(len(past))
        return pool(query, vector, candidates, shown, past, *rest, **options)

    p.engine.pool = noting
    item_of(p, choice)
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


def test_an_edited_answer_teaches_toward_the_candidate_it_is_like(person: Make) -> None:
    p = person(records(6))
    made = p.generate("a text about speech today", task=TASK)
    like = [c.text for c in made.candidates].index("speech: study 7")
    p.choose(text="speech: study 8", keep=False)
    (choice,) = p.store.choices(TASK)
    assert choice.picked is None
    item = item_of(p, choice)
    assert int(item.target.argmax()) == like
    assert item.target[like] > 1.5 / len(item.target)


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

    def noting(
        engine: object, history: object, choice: StoredChoice, tau: float, moment: int
    ) -> object:
        seen.append(choice.query)
        return choice_item(engine, history, choice, tau, moment)

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
    take(long, 28)
    after = p.fit_head(TASK, use_llm=False).roles[1]
    total = pools + 68
    assert 16 <= after.n_queries < 40
    assert f"latest {after.n_queries} of {total} queries" in after.reason
    assert {row.note for row in after.rows if row.utility is not None} == {LEFT_OUT}
    assert {row.n for row in after.rows[2:]} == {pools}, "what the heads do for them stays in sight"
    kept = learned_from(p)
    assert (kept.pools.items, len(kept.pools.zero), len(kept.pools.rag)) == ([], 0, 0)
    assert kept.outdated == total - after.n_queries
    assert p.generate("a text about vision once more", task=TASK, n=4).text == long
    assert len(p.store.choices(TASK)) == 68, "they are left out, not lost"


def test_choices_of_before_the_pools_do_not_speak_against_them(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change is from what came first to what came then, whichever was a pool."""
    p = person(records(40))
    pools = p.fit_head(TASK, calls=400).pools_made
    assert pools >= 8
    for i in range(4):
        made = p.generate(f"a text about {TOPICS[i]} today", task=TASK, n=4)
        p.choose(generation_id=made.id, pick=1, keep=False)
    # As if chosen when there was one record, before every pool.
    monkeypatch.setattr("hydra_edge.evidence.moments_of", lambda _s, _h, made: [1] * len(made))
    given: list[Groups] = []
    monkeypatch.setattr(
        "hydra_edge.evidence.choose_span",
        lambda _prior, groups: given.append(groups) or groups.n_groups - 4,
    )
    found = learned_from(p)
    (ordered,) = given
    assert ordered.n_groups == pools + 4
    assert found.outdated == 4
    assert len(found.pools.items) == found.groups.n_groups == pools
    assert len(found.pools.moments) == len(found.pools.zero) == pools
    # The first four were the choices: one-hot, unlike a pool's spread.
    first = ordered.take(np.arange(4)).targets
    assert first is not None
    assert set(first.tolist()) == {0.0, 1.0}
