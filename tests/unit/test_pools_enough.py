"""A fit asks about no record whose pool it would not look at."""

from __future__ import annotations

from dataclasses import replace

import cli_runner
import pytest
from learned_titles import TASK, learned_from, records, titles
from title_writer import Make, people

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

ENOUGH = "no more records are asked about: a fit looks at the answers to the latest 3 alone"


@pytest.fixture(autouse=True)
def _three_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hydra_edge.evidence.POOLS", 3)


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


def asked(p: Personalizer) -> set[str]:
    return {pool.query_id for pool in p.store.pools(TASK, purpose="pool")}


def test_a_fit_asks_nothing_once_the_latest_have_pools_and_says_why(person: Make, scripted) -> None:
    llm = scripted(titles)
    p = person(records(12), llm=llm)
    first = p.fit_head(TASK, calls=1000)
    assert (first.pools_made, asked(p)) == (3, {"r9", "r10", "r11"})
    assert ENOUGH in first.notes

    assert p.fit_prompts(TASK, calls=1000) == []
    sent = len(llm.prompts)
    further = p.fit_head(TASK, calls=1000)
    assert (further.llm_calls, further.pools_made, len(llm.prompts)) == (0, 0, sent)
    assert further.notes == (ENOUGH,)

    p.add([Record("a text about speech", "speech: new", TASK, id="new", time=99.0)])
    assert p.fit_prompts(TASK, calls=1000)
    assert p.fit_head(TASK, calls=1000).pools_made == 1
    assert asked(p) == {"r9", "r10", "r11", "new"}


def test_a_fit_with_pools_for_all_records_has_nothing_to_say_of_them(person: Make) -> None:
    p = person(records(5))
    for _ in range(2):
        assert p.fit_head(TASK, calls=1000).notes == ()
    assert asked(p) == {"r2", "r3", "r4"}


def test_records_that_get_no_pool_take_no_place_of_those_that_do(person: Make, scripted) -> None:
    """Private ones are not sent away, a kept choice and a twin teach otherwise."""
    past = records(12)
    past[11] = replace(past[11], private=True)
    past.append(replace(past[3], id="twin", time=50.0))
    llm = scripted(titles, is_remote=True)
    p = person(past, llm=llm)
    p.generate("a text about speech today", task=TASK)
    p.choose(pick=1)
    p.fit_head(TASK, calls=1000)
    assert asked(p) == {"r8", "r9", "r10"}
    assert len(learned_from(p).pools.items) == 3


def test_a_record_whose_pool_failed_is_not_said_to_be_one_too_many(person: Make, scripted) -> None:
    llm = scripted(titles)
    llm.fail_next = 1
    notes = person(records(12), llm=llm).fit_head(TASK, calls=1000).notes
    assert ENOUGH not in notes


def test_dry_run_of_a_fit_with_nothing_left_to_ask_says_how_far_back_a_fit_looks(
    hash_encoder, scripted
) -> None:
    def opener(user, *, create, config, paths):
        llm = scripted(titles, is_remote=True)
        return Personalizer.open(user, create=create, config=config, paths=paths, llm=llm)

    with opener(None, create=True, config=None, paths=None) as me:
        me.add(records(12))
        me.fit_head(TASK, calls=1000)
    done = cli_runner.call("fit-head", "--calls", "100", "--dry-run", opener=opener)
    why = "no record left to ask about among the latest 3, all that a fit looks at"
    assert why in done.stderr
