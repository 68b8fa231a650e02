"""Fits: the records heads are judged by, and what is said of those that teach nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from filled_store import cached_vectors
from learned_titles import TASK, records, titles
from title_writer import TOPICS, Make, people

from hydra_edge import fitting
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import shared_encoder
from hydra_edge.evaluate import Verdict
from hydra_edge.personalizer import Personalizer
from hydra_edge.reranker import proxy_data
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


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


def test_a_fit_for_many_records_shown_still_tells_heads_apart(person: Make) -> None:
    """The best 20 of 16 would be the same 16, whichever head chose."""
    report = person(records(120), records=20).fit_head(TASK, use_llm=False).roles[0]
    assert len({row.utility for row in report.rows}) > 1


def test_a_fit_drops_the_vectors_of_the_base_before(person: Make) -> None:
    p = person()
    p.store.put_vectors("earlier-base", {"0" * 64: np.ones(8, dtype=np.float16)})
    p.fit_head(TASK, use_llm=False)
    assert cached_vectors(p.store, ["0" * 64], "earlier-base") == {}
