"""Pools part of which is drawn with no record shown, as the base knows it to be best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.cache import CachedLLM
from hydra_edge.bundle import Bundle
from hydra_edge.candidates import Draw, Sampling, sample_pool
from hydra_edge.config import Config
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.personalizer import Personalizer
from hydra_edge.pools import Request, pool_key
from hydra_edge.population import zero_shot_share
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

TITLE, CATEGORY = BUILTIN["paper_title"], BUILTIN["news_category"]
RECORDS = [Record(f"text {i}", f"title {i}", "paper_title", id=f"r{i}") for i in range(3)]


@pytest.fixture(autouse=True)
def _one_prompt_a_pool() -> None:
    """Let the base decide, as it does outside of tests."""


def numbered(prompt: Prompt, n: int) -> list[str]:
    """Answer with what tells the prompts apart."""
    return [f"{'with' if prompt.shots else 'without'} {i}" for i in range(n)]


def sample(llm: object, prompt: Prompt, n: int, zero_shot: int) -> list[Completion]:
    _, completions = sample_pool(llm, prompt, Draw(n, 0.8, 16), zero_shot)
    return completions


def with_share(bundle: Bundle, share: float) -> Bundle:
    """Return the base as if a share of titles were best drawn without records."""
    others = {k: v for k, v in bundle.maps.items() if ".zero_shot." not in k}
    arrays = {"adapter.zero_shot.paper_title": np.array([share], dtype=np.float32)}
    return replace(bundle, maps=others | arrays)


@contextmanager
def engine_of(bundle: Bundle, encoder: TextEncoder) -> Iterator[Engine]:
    with Store.in_memory() as store:
        store.add(RECORDS)
        yield Engine(store, bundle, encoder)


def test_pool_ends_with_answers_to_the_query_alone(scripted: Callable) -> None:
    llm = scripted(numbered)
    completions = sample(llm, build_prompt(TITLE, "query", RECORDS), 4, 2)
    assert [c.text for c in completions] == ["with 0", "with 1", "without 0", "without 1"]
    assert [c.greedy for c in completions] == [True, False, False, False]
    assert [c.zero_shot for c in completions] == [False, False, True, True]
    assert [len(p.shots) for p in llm.prompts] == [3, 0]


def test_pool_without_such_draws_asks_one_prompt(scripted: Callable) -> None:
    llm = scripted(numbered)
    assert len(sample(llm, build_prompt(TITLE, "query", RECORDS), 4, 0)) == 4
    assert len(llm.prompts) == 1


def test_pool_without_its_last_answers_is_still_a_pool(scripted: Callable) -> None:
    def failing(prompt: Prompt, n: int) -> list[str]:
        if not prompt.shots:
            raise BackendError("gone")
        return numbered(prompt, n)

    completions = sample(scripted(failing), build_prompt(TITLE, "query", RECORDS), 4, 1)
    assert [c.text for c in completions] == ["with 0", "with 1", "with 2"]


@pytest.mark.parametrize(
    ("share", "n", "draws"),
    [(0.25, 8, 2), (0.5, 8, 4), (0.125, 8, 1), (0.5, 2, 1), (0.5, 1, 0), (0.0, 8, 0)],
)
def test_draws_without_records_follow_the_base(
    bundle: Bundle, hash_encoder, share: float, n: int, draws: int
) -> None:
    with engine_of(with_share(bundle, share), hash_encoder) as engine:
        assert engine.zero_shot_draws(build_prompt(TITLE, "query", RECORDS), n) == draws


def test_draws_without_records_are_none_where_none_is_shown(bundle: Bundle, hash_encoder) -> None:
    with engine_of(with_share(bundle, 0.5), hash_encoder) as engine:
        assert engine.zero_shot_draws(build_prompt(TITLE, "query", []), 8) == 0


def test_share_of_a_task_the_base_does_not_know_is_its_kinds(bundle: Bundle) -> None:
    text = with_share(bundle, 0.5).maps | {
        "adapter.zero_shot.text": np.array([0.25], dtype=np.float32)
    }
    base = replace(bundle, maps=text)
    assert zero_shot_share(base, TITLE) == 0.5
    assert zero_shot_share(base, replace(TITLE, name="letter_opening")) == 0.25
    assert zero_shot_share(base, CATEGORY) == 0.0


@pytest.fixture
def llm(scripted: Callable) -> object:
    return scripted(numbered)


@pytest.fixture
def person(hash_encoder, llm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Personalizer]:
    monkeypatch.setattr("hydra_edge.engine.zero_shot_share", lambda _bundle, _task: 0.25)
    records = [
        Record(f"a text about topic {i}", f"topic: {i}", "paper_title", id=f"r{i}", time=float(i))
        for i in range(12)
    ]
    with Personalizer.from_records(records, llm=llm, encoder=hash_encoder, config=Config()) as made:
        yield made


def test_generate_tells_which_candidate_saw_no_records_and_counts_both_calls(
    person: Personalizer,
) -> None:
    generation = person.generate("a text", task="paper_title", n=4)
    assert generation.usage.llm_calls == 2
    assert generation.usage.received == 4
    assert [c.text for c in generation.candidates if c.zero_shot] == ["without 0"]


def test_fit_shows_the_prompt_without_records_before_it_is_sent(person: Personalizer, llm) -> None:
    shown = person.fit_prompts("paper_title", calls=20)
    assert llm.prompts == []
    person.fit_head("paper_title", calls=20)
    sent = {p.completion_text() for p in llm.prompts}
    assert sent <= set(shown)
    assert any(not p.shots for p in llm.prompts)


def test_fit_shows_the_prompt_without_records_of_what_is_compared_with_nothing(
    person: Personalizer, llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plain answer is bought, whose prompt would be the same."""
    monkeypatch.setattr("hydra_edge.pools.COMPARED", 0)
    shown = person.fit_prompts("paper_title", calls=16)
    person.fit_head("paper_title", calls=16)
    sent = {p.completion_text() for p in llm.prompts}
    assert sent == set(shown)
    assert any(not p.shots for p in llm.prompts)


def test_pools_drawn_otherwise_have_keys_of_their_own(scripted: Callable) -> None:
    request = Request("pool", build_prompt(TITLE, "query", RECORDS), 8)
    llm, sampling = scripted(numbered), Sampling(8, 3, 0.8)
    keys = {pool_key(request, llm, sampling, draws) for draws in (0, 1, 2)}
    keys |= {pool_key(replace(request, purpose="rag"), llm, sampling, 0)}
    keys |= {pool_key(replace(request, n=4), llm, sampling, 0)}
    keys |= {pool_key(request, llm, replace(sampling, temperature=0.5), 0)}
    keys |= {pool_key(replace(request, prompt=request.prompt.without_shots()), llm, sampling, 0)}
    assert len(keys) == 7


def test_stored_pool_and_log_remember_what_saw_no_records() -> None:
    drawn = [Completion("a", greedy=True, tokens=1), Completion("b", tokens=1, zero_shot=True)]
    with Store.in_memory() as store:
        store.put_pool(
            "k", task="t", model="m", purpose="pool", query_id="q", record_ids=(), completions=drawn
        )
        kept = store.pool("k")
    assert kept is not None
    assert [c.zero_shot for c in kept] == [False, True]


def test_cached_larger_pool_answers_for_a_smaller_one(scripted: Callable, tmp_path: Path) -> None:
    llm = scripted(numbered)
    prompt = build_prompt(TITLE, "query", RECORDS)
    cache = CachedLLM(llm, tmp_path / "answers.jsonl")
    whole = cache.complete(prompt, n=4)
    assert cache.complete(prompt, n=3) == whole[:3]
    assert cache.asked == 1
    replay = CachedLLM(None, tmp_path / "answers.jsonl", name=llm.name)
    assert replay.complete(prompt, n=3) == whole[:3]
    with pytest.raises(BackendError, match="No answer"):
        replay.complete(prompt, n=5)


def test_cached_prompt_without_room_has_none_for_a_smaller_pool(
    scripted: Callable, tmp_path: Path
) -> None:
    def too_long(prompt: Prompt, n: int) -> list[str]:
        raise ContextLengthError("no room")

    prompt = build_prompt(TITLE, "query", RECORDS)
    cache = CachedLLM(scripted(too_long), tmp_path / "answers.jsonl")
    for n in (4, 3):
        with pytest.raises(ContextLengthError):
            cache.complete(prompt, n=n)
