"""Learning from a choice at once: which answer it is of, the one step, and taking it back."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from learned_titles import TASK, put, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge import headreport, learning
from hydra_edge.active import ActiveHead
from hydra_edge.errors import CancelledError, ConfigError
from hydra_edge.evidence import ChoiceItem
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def test_choosing_the_same_again_changes_nothing(person: Make) -> None:
    p = person()
    p.generate("a text about speech today", task=TASK)
    versions = [p.choose(pick=2).head_version for _ in range(3)]
    assert versions == [versions[0]] * 3
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.n_queries == 1


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


def test_a_head_fitted_anew_for_another_choice_says_why_it_serves(person: Make) -> None:
    p = person()
    made = [p.generate(f"a text about {t} today", task=TASK) for t in TOPICS]
    for generation in made:
        p.choose(generation_id=generation.id, pick=1)
    told: list[tuple[str, int, int]] = []
    p.choose(generation_id=made[0].id, pick=3, progress=lambda *at: told.append(at))
    head = p.store.head(TASK, "adapter")
    assert head is not None
    assert head.report["reason"] == learning.UPDATED
    assert ("choices", 4, 4) in told


def imported(n: int = 40) -> list[Record]:
    """Make records too long for all of them to be encoded at once."""
    return [
        Record(f"{i} " + "word " * 1000, f"title {i}", TASK, f"i{i}", float(i)) for i in range(n)
    ]


def test_a_choice_stopped_while_an_import_is_encoded_is_kept_for_the_next_fit(
    person: Make,
) -> None:
    p = person(records(6))
    p.generate("a text about speech today", task=TASK)
    p.add(imported())
    told: list[tuple[str, int, int]] = []
    with pytest.raises(CancelledError, match=r"The choice is kept.* The next fit learns from it"):
        p.choose(pick=2, progress=lambda *at: told.append(at), should_stop=lambda: bool(told))
    ((stage, done, total),) = told
    assert stage == "embed"
    assert 0 < done < total
    (choice,) = p.store.choices()
    assert (choice.picked, p.store.get(choice.record_id).output) == (1, choice.text)
    assert p.store.heads() == []

    p.fit_head(TASK, use_llm=False)
    assert p.store.head(TASK, "adapter").n_queries == 1
    p.choose(pick=2)
    assert p.store.head(TASK, "adapter").n_queries == 1


def test_a_stopped_choice_is_learned_when_it_is_made_again(person: Make) -> None:
    p = person(records(6))
    p.generate("a text about speech today", task=TASK)
    p.add(imported())
    with pytest.raises(CancelledError):
        p.choose(pick=2, should_stop=lambda: True)
    assert p.choose(pick=2, should_stop=lambda: False).head_version == 1


def test_the_time_of_a_step_is_told_without_that_of_encoding(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = person(records(6))
    p.generate("a text about speech today", task=TASK)
    p.add(imported())
    now = [0.0]
    clock = SimpleNamespace(time=time.time, monotonic=lambda: now[0])
    monkeypatch.setattr(learning, "time", clock)

    def wait(*_at: object) -> None:
        now[0] += 60.0

    step = learning.choice_item

    def prepare(*given: object) -> ChoiceItem:
        now[0] += 0.5
        return step(*given)

    monkeypatch.setattr(learning, "choice_item", prepare)
    assert p.choose(pick=2, progress=wait).update_ms == 500.0
    assert now[0] > 60.0


def test_where_there_is_no_step_to_take_an_import_is_not_encoded(
    person: Make, hash_encoder
) -> None:
    p = person(records(6))
    p.generate("a text about speech today", task=TASK)
    version = p.choose(pick=2, keep=False).head_version
    for fitted in (False, True):
        if fitted:
            p.fit_head(TASK, use_llm=False)
            version = p.store.head(TASK, "adapter").version
        p.add([Record(f"one more {fitted}", "a title", TASK)])
        hash_encoder.encoded.clear()
        again = p.choose(pick=2, keep=False)
        assert (again.head_version, again.update_ms) == (version, 0.0)
        assert hash_encoder.encoded == []


def test_a_choice_that_can_teach_nothing_encodes_nothing(
    person: Make, scripted, hash_encoder
) -> None:
    notes = [Record(f"film {i}", f"I rate it {i % 5}", "my_films", f"n{i}") for i in range(4)]
    p = person(notes, scripted(lambda _prompt, n: ["I rate it 4", "4"][:n]))
    made = p.generate("film 40", task="my_films", n=2)
    p.add([Record(f"film {i}", str(1 + i % 5), "my_films", f"n{i}") for i in range(30)])
    hash_encoder.encoded.clear()
    pick = 1 + [c.text for c in made.candidates].index("I rate it 4")
    result = p.choose(pick=pick, keep=False)
    assert (result.head_version, result.update_ms) == (None, 0.0)
    assert hash_encoder.encoded == []


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
    imported = replace(head, report=head.report | {headreport.IMPORTED: True})
    assert (headreport.model_of(head), headreport.model_of(imported)) == ("scripted", None)
