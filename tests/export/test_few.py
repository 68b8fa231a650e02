"""How far few records are believed: learned from users whose latest record misleads, or tells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import HashEncoder
from neutral_base import DIM, neutral_base

from export.data import UserHistory
from export.episodes import pool_episodes
from export.few import choose_half_at
from export.labels import PoolLabel
from hydra_edge.bundle import Bundle
from hydra_edge.features import feature_names
from hydra_edge.types import Completion, Record

RECORDS, FIRST = 14, 8
TASK = "news_headline"
STORIES = ("red roses", "blue whales")
USERS = [f"u{i:02}" for i in range(12)]


@pytest.fixture
def base(tmp_path: Path) -> Bundle:
    return neutral_base(tmp_path)


def writer(name: str, *, misled: bool) -> UserHistory:
    """Make a user of one story; ``misled``: of late every other record tells the other one."""
    own = int(name[1:]) % 2
    records = []
    for i in range(RECORDS):
        story = STORIES[1 - own if misled and i >= FIRST - 1 and i % 2 else own]
        records.append(Record(f"what is new {i}", story, TASK, id=f"{name}-{i}", time=float(i)))
    return UserHistory(name, TASK, tuple(records))


def pools(user: UserHistory) -> list[PoolLabel]:
    """Let an LLM tell both stories, the right one twice as often in three of four answers."""
    out = []
    for i in range(FIRST, RECORDS, 2):
        right = user.records[i].output
        wrong = next(story for story in STORIES if story != right)
        often, once = (wrong, right) if (i // 2 + int(user.user[1:])) % 4 == 0 else (right, wrong)
        answers = tuple(Completion(text) for text in (often, often, once))
        out.append(
            PoolLabel(
                "llm", user.user, user.records[i].id, i, (), answers, TASK,
                plain=answers,
            )
        )  # fmt: skip
    return out


def choose(base: Bundle, *, misled: bool) -> tuple[float, dict]:
    users = [writer(name, misled=misled) for name in USERS]
    return choose_half_at(
        [pool for user in users for pool in pools(user)],
        {(TASK, user.user): user for user in users},
        base, HashEncoder(base.base_id, DIM), lambda *_: None, {},
    )  # fmt: skip


def test_records_that_tell_are_believed_at_once(
    base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.few.HALF_AT", (1000.0, 0.0))
    half_at, stated = choose(base, misled=False)
    assert half_at == stated["half_at"] == 0.0
    assert stated["utility"]["0"] == {"1": 1.0, "4": 1.0, "all": 1.0}
    assert stated["utility"]["1000"]["1"] < 1.0


def test_single_records_that_mislead_are_believed_late(base: Bundle) -> None:
    half_at, stated = choose(base, misled=True)
    assert half_at > 0.0
    assert stated["utility"][f"{half_at:g}"]["1"] > stated["utility"]["0"]["1"]


def test_without_free_text_nothing_is_drawn_in(base: Bundle) -> None:
    assert choose_half_at([], {}, base, HashEncoder(base.base_id, DIM), lambda *_: None, {}) == (
        0.0,
        {},
    )


@pytest.mark.parametrize("names", [["u00"], ["u00", "u01"]])
def test_with_nobody_to_be_judged_on_nothing_is_chosen(base: Bundle, names: list[str]) -> None:
    pytest.importorskip("torch")
    from export.train import choose_shares

    users = [writer(name, misled=False) for name in names]
    asked = [pool for user in users for pool in pools(user)]
    blank = (Completion(""),) * 3  # a second user whom the LLM never answered changes nothing
    asked = [replace(p, completions=blank, plain=blank) if p.user == "u01" else p for p in asked]
    of = {(TASK, user.user): user for user in users}
    encoder = HashEncoder(base.base_id, DIM)
    assert choose_half_at(asked, of, base, encoder, lambda *_: None, {}) == (0.0, {})
    assert choose_shares(asked, of, base, encoder, lambda *_: None) == ({}, {})


def test_task_without_an_answer_leaves_the_others_theirs(base: Bundle) -> None:
    pytest.importorskip("torch")
    from export.train import choose_shares

    users = [writer(name, misled=False) for name in USERS]
    asked = [pool for user in users for pool in pools(user)]
    other = "commit_subject"
    blank = (Completion(" "),) * 3
    unanswered = [replace(p, task=other, completions=blank, plain=blank) for p in asked]
    of = {(TASK, user.user): user for user in users}
    of |= {
        (other, user.user): UserHistory(
            user.user, other, tuple(replace(r, task=other) for r in user.records)
        )
        for user in users
    }
    encoder = HashEncoder(base.base_id, DIM)
    _, stated = choose_half_at([*unanswered, *asked], of, base, encoder, lambda *_: None, {})
    assert stated == choose_half_at(asked, of, base, encoder, lambda *_: None, {})[1]
    shares, _ = choose_shares([*unanswered, *asked], of, base, encoder, lambda *_: None)
    assert set(shares) == {TASK, "text"}


def test_episodes_of_the_latest_records_know_no_others(base: Bundle) -> None:
    user = writer("u01", misled=True)
    asked, encoder = pools(user), HashEncoder(base.base_id, DIM)
    known = {(TASK, user.user): user}
    (few,) = pool_episodes(asked, known, base, encoder, lambda *_: None, latest=1)
    (all_,) = pool_episodes(asked, known, base, encoder, lambda *_: None)
    assert [e.position for e in few.episodes] == [1] * len(asked)
    assert [e.position for e in all_.episodes] == [p.position for p in asked]
    support = feature_names("adapter").index("support_wide")
    for episode in few.episodes:  # the record before the query tells the other story
        assert episode.raw[episode.utilities.argmin(), support] > 0.99
    assert all(e.raw[e.utilities.argmax(), support] > 0.5 for e in all_.episodes)
