"""Taking a choice back: the choice, the record kept of it, and what heads learned from it."""

from __future__ import annotations

import pytest
from learned_titles import TASK, evidence, put, records, titles
from title_writer import Make, people

from hydra_edge.errors import ConfigError, DiskFullError, HydraError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def state(p: Personalizer) -> tuple[object, ...]:
    """Return all that a choice changes."""
    head = p.store.head(TASK, "adapter")
    return (
        [record.id for record in p.store.records()],
        p.store.choices(),
        [(h.role, h.version, h.stale) for h in p.store.heads()],
        None if head is None else (head.version, head.weight.tolist()),
    )


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("choice", [{"pick": 2}, {"text": "My own"}, {"pick": 3, "keep": False}])
def test_undo_leaves_head_choices_and_records_as_before_the_choice(
    person: Make, fitted: bool, choice: dict[str, object]
) -> None:
    p = person()
    for i in range(2 * fitted):
        p.generate(f"a text about speech {i}", task=TASK)
        p.choose(pick=2)
    if fitted:
        p.fit_head(TASK, use_llm=False)
    made = p.generate("a text about vision", task=TASK)
    before = state(p)
    taken = p.choose(**choice)
    assert state(p) != before
    undone = p.undo_choice()
    assert state(p) == before
    assert (undone.generation_id, undone.task, undone.query) == (made.id, TASK, made.query)
    assert (undone.text, undone.record_id) == (taken.text, taken.record_id)
    assert (undone.record_erased, undone.fitted_again) == (taken.record_id is not None, False)
    assert p.choose(generation_id=made.id, pick=1).record_id is not None, "it can be chosen from"


def test_undo_after_choosing_again_leaves_nothing_of_either_choice(person: Make) -> None:
    p = person()
    p.generate("a text about vision", task=TASK)
    before = state(p)
    p.choose(pick=2)
    p.choose(pick=3)
    p.undo_choice()
    assert state(p) == before


def test_undo_of_a_choice_that_others_followed_fits_the_head_again_without_it(
    person: Make,
) -> None:
    p = person()
    made = [p.generate(f"a text about speech {i}", task=TASK) for i in range(3)]
    for generation in made:
        p.choose(generation_id=generation.id, pick=2, keep=False)
    steps = {head.version for head in p.store.heads()}
    undone = p.undo_choice(generation_id=made[0].id)
    assert undone.fitted_again
    assert evidence(p) == 2
    assert [c.generation_id for c in p.store.choices()] == [g.id for g in made[1:]]
    adapter = p.store.head(TASK, "adapter")
    assert adapter is not None
    assert (adapter.version, adapter.n_queries, adapter.stale) == (undone.head_version, 2, False)
    assert steps.isdisjoint(head.version for head in p.store.heads() if head.role == "adapter")


@pytest.mark.parametrize("way", ["undo", "clear-log"])
def test_erasing_a_choice_without_any_record_leaves_what_the_others_taught(
    person: Make, way: str
) -> None:
    p = person([])
    made = [p.generate(f"a text about speech {i}", task=TASK) for i in range(3)]
    for generation in made:
        p.choose(generation_id=generation.id, pick=2, keep=False)
    p.fit_head(TASK, use_llm=False)
    if way == "undo":
        undone = p.undo_choice(generation_id=made[0].id)
        assert (undone.fitted_again, undone.head_version) == (True, 5)
    else:
        p.clear_log(choices=True, generation_id=made[0].id)
    adapter = p.store.head(TASK, "adapter")
    assert adapter is not None
    assert (adapter.n_queries, adapter.stale) == (2, False)


def test_heads_of_a_task_that_nobody_knows_without_its_records_are_dropped(person: Make) -> None:
    p = person([Record("lunch at noon", "a long meal of ours", "own_task", "r0")])
    made = [p.generate(f"a text about speech {i}", task="own_task", k=0) for i in range(2)]
    for generation in made:
        p.choose(generation_id=generation.id, pick=2, keep=False)
    assert p.forget("r0").tasks == ("own_task",)
    assert (len(p.store.choices()), p.store.heads()) == (2, [])
    assert p.undo_choice().fitted_again is False


def test_undo_of_all_there_is_says_that_nothing_was_fitted(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person([])
    p.generate("a text about speech", task=TASK)
    p.choose(pick=2, keep=False)
    p.fit_head(TASK, use_llm=False)
    with monkeypatch.context() as patch:
        patch.setattr("hydra_edge.resources.Resources.engine", None)  # nor is any needed
        undone = p.undo_choice()
    assert (undone.fitted_again, undone.head_version) == (False, None)
    assert p.store.heads() == []


def test_clear_log_on_a_full_disk_fits_without_the_choices_that_are_gone(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object, **_flags: object) -> None:
        raise DiskFullError("no space is left on its disk.")

    p = person()
    for i in range(2):
        p.generate(f"a text about speech {i}", task=TASK)
        p.choose(pick=2, keep=i == 1)
    p.fit_head(TASK, use_llm=False)
    monkeypatch.setattr("hydra_edge.store.log.drop", full)
    with pytest.raises(DiskFullError, match=r"got 0 of 2 answers deleted.*Free a megabyte"):
        p.clear_log(choices=True)
    assert evidence(p) == 1
    assert not any(head.stale for role in ("adapter", "reranker")
                   if (head := p.store.head(TASK, role)))  # fmt: skip

    p.generate("a text about speech", task=TASK)
    p.choose(pick=2, keep=False)
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", full)
    with pytest.raises(
        DiskFullError, match=r"of 3 answers deleted.*Besides, the heads of paper_title could not"
    ):
        p.clear_log(choices=True)


def test_undo_after_a_fit_leaves_no_head_that_learned_from_the_choice(person: Make) -> None:
    p = person()
    p.fit_head(TASK, use_llm=False)
    p.generate("a text about vision", task=TASK)
    kept = p.choose(pick=2).record_id
    p.fit_head(TASK, use_llm=False)
    assert p.undo_choice().fitted_again
    assert p.store.head(TASK, "adapter") is None, "there is nothing to fit it on"
    reranker = p.store.head(TASK, "reranker")
    assert reranker is not None
    assert (reranker.version, reranker.stale) == (3, False)
    assert kept not in {record.id for record in p.store.records()}


def test_undo_goes_back_from_a_step_that_followed_a_rollback(person: Make) -> None:
    p = person()
    for i in range(3):
        p.generate(f"a text about speech {i}", task=TASK)
        p.choose(pick=2, keep=False)
    p.store.rollback_head(TASK, "adapter", 1)
    before = state(p)
    p.generate("a text about vision", task=TASK)
    assert p.choose(pick=2).head_version == 4
    assert p.undo_choice().head_version == 1
    assert state(p) == before


def test_undo_leaves_a_head_brought_from_elsewhere(person: Make) -> None:
    p, q = person(), person()
    for i in range(2):
        p.generate(f"a text about speech {i}", task=TASK)
        p.choose(pick=2, keep=False)
    q.import_head(p.export_head(TASK, "adapter"))
    made = [q.generate(f"a text about vision {i}", task=TASK) for i in range(2)]
    for generation in made:
        q.choose(generation_id=generation.id, pick=2, keep=False)
    assert q.undo_choice(generation_id=made[0].id).head_version == 3
    assert q.undo_choice().head_version == 1
    assert not q.store.head(TASK, "adapter").stale


@pytest.mark.parametrize("source", ["choices", "jsonl:/elsewhere.jsonl"])
def test_undo_leaves_a_record_that_is_not_the_choices_own_any_more(
    person: Make, source: str
) -> None:
    p = person()
    made = p.generate("a text about vision", task=TASK)
    text = made.candidates[1].text
    if source != "choices":  # it was there before, under the id that the choice takes
        p.add(Record(made.query, text, TASK, f"choice-{made.id}", 99.0, source=source))
    kept = p.choose(pick=2).record_id
    if source == "choices":
        p.add(Record(made.query, "Written anew", TASK, kept, source=source))
    count = p.store.count()
    undone = p.undo_choice()
    assert (undone.record_id, undone.record_erased) == (kept, False)
    assert undone.record_is_own is (source == "choices")
    assert (p.store.count(), p.store.choices()) == (count, [])


def test_undo_erases_pools_that_show_the_record(person: Make) -> None:
    p = person()
    p.generate("a text about vision", task=TASK)
    kept = p.choose(pick=2).record_id
    put(p, "r30", "vision: study 7", "r1", kept)
    put(p, "r31", "search: study 7", "r1")
    p.undo_choice()
    assert [pool.query_id for pool in p.store.pools()] == ["r31"]


@pytest.mark.parametrize("generation_id", [None, "elsewhere"])
def test_undo_without_a_choice_says_so(person: Make, generation_id: str | None) -> None:
    p = person()
    p.generate("a text about vision", task=TASK)
    with pytest.raises(ConfigError, match="There is no choice to take back"):
        p.undo_choice(generation_id=generation_id)


def test_undo_that_fails_midway_leaves_everything_as_it_was(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(*_given: object) -> None:
        raise KeyboardInterrupt

    p = person()
    p.generate("a text about vision", task=TASK)
    p.choose(pick=2)
    before = state(p)
    with monkeypatch.context() as patch:
        patch.setattr("hydra_edge.store.heads.unlearn", power_cut)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            p.undo_choice()
    assert state(p) == before
    p.undo_choice()
    assert p.store.choices() == []


def test_undo_whose_fit_fails_says_that_the_choice_is_taken_back(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_given: object, **_flags: object) -> None:
        raise HydraError("no room.")

    p = person()
    made = [p.generate(f"a text about speech {i}", task=TASK) for i in range(2)]
    for generation in made:
        p.choose(generation_id=generation.id, pick=2)
    monkeypatch.setattr("hydra_edge.forgetting.fit_task", fail)
    with pytest.raises(HydraError, match=r"The choice is taken back, but the heads of paper_title"):
        p.undo_choice(generation_id=made[0].id)
    assert len(p.store.choices()) == 1
    assert p.store.head(TASK, "adapter").stale
