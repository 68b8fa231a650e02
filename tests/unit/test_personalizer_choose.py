"""Learning from choices: one step, the next fit, and which answer is the last one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
from title_writer import TOPICS, Make, people

from hydra_edge.errors import ConfigError, DiskFullError, StoreError
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


@pytest.mark.parametrize(
    "slip", ["network, but ask the people on the second floor first", "network\nbut ask first"]
)
def test_a_long_answer_chosen_among_inferred_labels_is_learned_from_and_is_no_label(
    person: Make, scripted, slip: str
) -> None:
    teams = ("access", "hardware", "network")
    records = [
        Record(f"{teams[i % 3]} ticket number {i}", teams[i % 3], "my_teams", f"t{i}", float(i))
        for i in range(30)
    ]
    llm = scripted(lambda _prompt, n: [teams[i % 3] for i in range(n)])
    p = person(records, llm=llm)
    p.fit_head("my_teams", calls=20)
    p.generate("network ticket again", task="my_teams")
    p.choose(text=slip)
    assert slip in {r.output for r in p.store.records(task="my_teams")}
    assert (p.task("my_teams").kind, p.task("my_teams").labels) == ("label", teams)

    p.fit_head("my_teams", calls=40)
    assert {h.report["kind"] for h in p.store.heads("my_teams")} == {"label"}
    made = p.generate("network ticket again", task="my_teams", k=31)  # all there are
    assert slip in {r.record.output for r in made.records}
    assert {c.text for c in made.candidates} == set(teams)
    p.choose(text="network")
    assert p.store.choices("my_teams")[-1].picked is not None
    assert all(prompt.task.labels == teams for prompt in llm.prompts)


def test_choose_takes_one_step_toward_the_pick(person: Make) -> None:
    p = person()
    generation = p.generate("a text about speech")
    last = len(generation.candidates)
    picked = generation.candidates[-1].text
    result = p.choose(pick=last)
    assert (result.text, result.head_version) == (picked, 1)
    state = p.store.head("paper_title", "adapter")
    assert state is not None
    p.store.save_head(replace(state, switch="personal"))
    again = p.generate("a text about speech")

    def lead(candidates) -> float:
        scores = {c.text: c.score for c in candidates}
        return scores[picked] - max(s for t, s in scores.items() if t != picked)

    assert lead(again.candidates) > lead(generation.candidates)


def test_choose_keeps_the_answer_as_a_record(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    assert p.choose(text="other", keep=False).record_id is None
    result = p.choose(text="speech: my own words")
    assert result.record_id is not None
    record = p.store.get(result.record_id)
    assert (record.input, record.output) == ("a text about speech", "speech: my own words")


def test_choose_is_part_of_the_next_fit(person: Make) -> None:
    p = person()
    p.generate("a text about speech")
    p.choose(pick=2)
    report = p.fit_head(use_llm=False)
    assert report.roles[1].n_queries == 1


def test_fit_on_choices_alone_claims_no_utility(person: Make) -> None:
    p = person()
    for i in range(3):
        p.generate(f"a text about speech {i}")
        p.choose(pick=2)
    report = p.fit_head(use_llm=False)
    adapter = next(role for role in report.roles if role.role == "adapter")
    assert [row.utility for row in adapter.rows] == [None] * 4
    assert all("choices alone" in row.note for row in adapter.rows)


def test_choose_needs_something_to_choose_from(person: Make) -> None:
    p = person()
    with pytest.raises(ConfigError, match="Generate one first"):
        p.choose(pick=1)
    p.generate("about speech")
    with pytest.raises(ConfigError, match="No candidate 99; expected 1 to 5"):
        p.choose(pick=99)
    with pytest.raises(ConfigError, match="either the number"):
        p.choose()
    with pytest.raises(ConfigError, match="either the number"):
        p.choose(text="  ")


def test_log_off_remembers_no_answer(person: Make) -> None:
    p = person(log=False)
    p.generate("about speech")
    assert p.store.last_generation() is None


def test_choose_after_an_unlogged_answer_is_refused(person: Make) -> None:
    p = person()
    logged = p.generate("about speech")
    p.config = replace(p.config, log=False)
    for query in ("my printer", "my other printer"):
        p.generate(query)
        with pytest.raises(ConfigError, match="The last answer is not remembered"):
            p.choose(pick=1)
    assert p.store.choices() == []
    assert p.choose(generation_id=logged.id, pick=1).generation_id == logged.id
    p.config = replace(p.config, log=True)
    last = p.generate("about vision")
    assert p.choose(pick=1).generation_id == last.id


@pytest.mark.parametrize("failing", [["log_generation"], ["log_generation", "mark_unlogged"]])
def test_choose_after_an_answer_that_could_not_be_logged_is_refused(
    person: Make, monkeypatch: pytest.MonkeyPatch, failing: list[str]
) -> None:
    def full(*_given: object) -> None:
        raise StoreError("no space is left")

    p = person()
    earlier = p.generate("about speech")
    with monkeypatch.context() as patch:
        for name in failing:
            patch.setattr(p.store, name, full)
        notes = p.generate("my printer").notes
    assert ["no space is left" in note for note in notes].count(True) == len(failing)
    for _ in range(2):
        with pytest.raises(ConfigError, match="The last answer is not remembered"):
            p.choose(pick=1)
    assert p.store.choices() == []
    assert p.choose(generation_id=earlier.id, pick=1).generation_id == earlier.id


def test_choose_takes_what_was_logged_after_an_answer_that_could_not_be(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_given: object) -> None:
        raise StoreError("no space is left")

    p = person()
    p.generate("about speech")
    with monkeypatch.context() as patch:
        patch.setattr(p.store, "log_generation", full)
        patch.setattr(p.store, "mark_unlogged", full)
        p.generate("my printer")
    last = p.generate("about vision")
    assert p.choose(pick=1).generation_id == last.id


def test_choose_after_the_last_answer_was_forgotten_is_refused(person: Make) -> None:
    p = person()
    made = [p.generate(f"a text about {topic}", k=1) for topic in TOPICS[:3]]
    shown = [generation.records[0].record.id for generation in made]
    assert len(set(shown)) == len(made)
    p.forget([shown[0]])
    assert p.choose(pick=2, keep=False).generation_id == made[2].id
    p.forget([shown[2]])
    assert [p.store.generation(generation.id) is None for generation in made] == [True, False, True]
    with pytest.raises(ConfigError, match="The last answer is not remembered"):
        p.choose(pick=2)
    last = p.generate("a text about search", k=1)
    assert p.choose(pick=2).generation_id == last.id


def test_choose_takes_what_another_release_logged_after_an_unlogged_answer(person: Make) -> None:
    p = person()
    p.generate("about speech")
    p.store.mark_unlogged()
    with p.store._db.writing() as connection:  # as releases do that know of no mark
        connection.execute(
            "INSERT INTO log (id, task, query, text, model, candidates, record_ids, usage, time) "
            "SELECT 'new', task, query, text, model, candidates, record_ids, usage, time FROM log"
        )
    assert p.choose(pick=1).generation_id == "new"


def test_choose_without_room_for_its_step_says_that_the_choice_is_kept(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFullError("no space is left on its disk. Free some space and try again.")

    p = person()
    generation = p.generate("a text about speech")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "save_head", full)
        with pytest.raises(DiskFullError, match=r"no space is left.*The choice is kept"):
            p.choose(pick=2)
    assert p.store.choice(generation.id) is not None
    assert p.choose(pick=2).head_version == 1


def test_choose_that_fails_and_is_forgotten_by_then_is_not_said_to_be_kept(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def withdrawn(store: Store, *_: object, **__: object) -> None:
        store.withdraw_choice(None)
        raise StoreError("gone")

    p = person()
    p.generate("a text about speech")
    monkeypatch.setattr(Store, "save_head", withdrawn)
    monkeypatch.setattr(Store, "together", lambda _: nullcontext())
    with pytest.raises(StoreError, match=r"^gone$"):
        p.choose(pick=2)


def test_answer_whose_task_is_renamed_meanwhile_is_remembered_under_the_new_name(
    person: Make, scripted
) -> None:
    def renamed(_prompt: Prompt, n: int) -> list[str]:
        if p.store.count("paper_title"):  # by another program, while the LLM writes
            p.store.rename_task("paper_title", "my_papers", lambda _: False)
        return [f"a title of {i} words" for i in range(n)]

    p = person(llm=scripted(renamed))
    count = p.store.count()
    generation = p.generate("a text about speech", task="paper_title")
    assert p.store.generation(generation.id).task == "my_papers"
    chosen = p.choose(pick=2)
    assert chosen.task == "my_papers"
    assert p.store.tasks() == {"my_papers": count + 1}
