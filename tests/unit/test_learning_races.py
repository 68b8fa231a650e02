"""Other programs choose, forget and fit meanwhile: no choice is lost, nothing forgotten stays."""

from __future__ import annotations

import pytest
from learned_titles import TASK, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge import fitting, learning
from hydra_edge.errors import CancelledError
from hydra_edge.evaluate import Verdict
from hydra_edge.evidence import ChoiceItem
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


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


def test_a_pool_made_before_records_were_forgotten_is_not_kept(person: Make) -> None:
    p = person()
    before = p.store.revision().rewrites
    pool = {"task": TASK, "model": "m", "query_id": "r1", "record_ids": (), "completions": ()}
    assert p.store.put_pool("a", **pool, rewrites=before)
    p.store.forget(["r39"])
    assert not p.store.put_pool("b", **pool, rewrites=before)
    assert p.store.pool("b") is None
