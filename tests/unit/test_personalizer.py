"""The facade with a fake encoder and a scripted LLM: open and close, add, rank."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from title_writer import Make, history, people, titles

from hydra_edge.config import Config
from hydra_edge.errors import ConfigError, UnknownModelError, UnknownTaskError, UnknownUserError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


def test_rank_scores_are_the_sum_of_their_contributions(person: Make) -> None:
    ranking = person().rank("a text about speech", task="paper_title")
    assert len(ranking.records) == 4
    for ranked in ranking.records:
        assert sum(ranked.contributions.values()) == pytest.approx(ranked.score, abs=1e-4)
    scores = [r.score for r in ranking.records]
    assert scores == sorted(scores, reverse=True)
    assert ranking.head.switch == "shared"
    assert ranking.head.version is None


def test_rank_a_record_that_is_there_twice_is_shown_once(person: Make) -> None:
    mine = history(8)
    p = person([*mine, *(replace(r, id=f"{r.id} renamed", time=50.0) for r in mine)])
    for k in (3, 20):
        found = [r.record for r in p.rank("a text about speech", task="paper_title", k=k).records]
        assert len(found) == min(k, 8)
        assert len({record.input for record in found}) == len(found)


def test_rank_without_a_task_takes_the_most_used_one(person: Make) -> None:
    extra = [Record("x", "y", "commit_subject", id="c")]
    assert person([*history(), *extra]).rank("speech").task == "paper_title"


def test_rank_unknown_task_lists_what_exists(person: Make) -> None:
    with pytest.raises(UnknownTaskError, match="paper_title"):
        person().rank("speech", task="nonsense")
    mine = [Record("a ticket", "network", "my_teams")]
    with pytest.raises(UnknownTaskError, match="my_teams"):
        person(mine).rank("speech", task="my_taems")


def test_rank_empty_history_and_empty_query(person: Make) -> None:
    assert person([]).rank("speech", task="paper_title").records == ()
    with pytest.raises(ConfigError, match="The query is empty"):
        person().rank("  \n ")


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_everything_works_with_almost_no_records(person: Make, n: int) -> None:
    p = person(history(n))
    report = p.fit_head("paper_title", calls=30)
    assert report.records == n
    assert p.generate("about speech", task="paper_title").text
    assert len(p.rank("about speech", task="paper_title").records) == min(n, 4)


def test_open_unknown_user_lists_those_that_exist(home: Path) -> None:
    with Personalizer.open("ann", create=True):
        pass
    with pytest.raises(UnknownUserError, match="ann"):
        Personalizer.open("bob")
    assert not (home / "users" / "bob.db").exists()


def test_close_closes_only_an_llm_of_its_own(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(llm=llm)
    p.generate("about speech")
    p.close()
    assert llm.closed == 0


def test_unknown_model_lists_what_exists(hash_encoder) -> None:
    p = Personalizer.from_records(
        history(), encoder=hash_encoder, config=replace(Config(), model="gpt-nonsense")
    )
    with pytest.raises(UnknownModelError, match="smollm2"):
        p.generate("about speech")
    p.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": "  "},
        {"output": ""},
        {"output": None},
        {"time": "2024-01-02"},
        {"time": 1e300},
        {"time": float("nan")},
        {"time": True},
        {"task": None},
        {"id": 5},
        {"source": None},
        {"private": None},
        {"id": "two\nlines"},
        {"id": "x" * 201},
        {"task": "a \x1b[31m task"},
    ],
)
def test_add_refuses_what_is_no_record(person: Make, wrong: dict[str, object]) -> None:
    p = person()
    record = replace(Record("a text", "a title", "paper_title", time=5.0), **wrong)
    message = r"A record cannot be added: its .*(; expected|control characters)"
    with pytest.raises(ConfigError, match=message):
        p.add([record])
    assert p.store.count() == 40


def test_add_replaces_what_no_file_can_hold_and_takes_one_record_by_itself(person: Make) -> None:
    p = person([])
    assert p.add(Record("a\x00b", "c\ud800", "note_title", id="r")).added == 1
    assert p.store.get("r") == Record("a\ufffdb", "c\ufffd", "note_title", id="r")


def test_add_refuses_a_dict_in_place_of_a_record(person: Make) -> None:
    with pytest.raises(ConfigError, match=r"got .*'input'.*; expected a Record"):
        person().add([{"input": "a text", "output": "a title"}])


@pytest.mark.parametrize("spelling", ["Note-Title", " note title ", "note_title"])
def test_add_finds_a_record_again_however_its_task_is_spelled(person: Make, spelling: str) -> None:
    p = person([Record(f"text number {i}", f"title {i}", spelling) for i in range(5)])
    assert p.store.tasks() == {"note_title": 5}
    for asked in (spelling, "NOTE_TITLE"):
        assert p.rank("text number 3", task=asked).records[0].record.output == "title 3"


def test_add_without_a_task_is_of_the_default_one(person: Make) -> None:
    p = person([Record("a text", "a title", task="")])
    assert p.store.tasks() == {"general": 1}
