"""Pools an error has cut short are not kept, told of, and asked for again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import api_client
import pytest
from conftest import ScriptedLLM
from learned_titles import TASK, learned_from, records, titles
from llm_server import Handler, Seen, Server, answer, completion, error
from title_writer import Make, people

from hydra_edge.buying import MAX_FAILURES
from hydra_edge.candidates import Callbacks, Draw, sample_pool
from hydra_edge.errors import BackendError
from hydra_edge.evidence import WHOLE
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

API = "openai:m@host"


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted, records, titles)


server, sleeps, llm = api_client.server, api_client.sleeps, api_client.llm


class Failing(ScriptedLLM):
    """Gives as many answers as ``left`` says of the number asked for, and tells why not all."""

    def __init__(self, left: Callable[[int, int], int], *, tells: bool = True) -> None:
        super().__init__(titles)
        self.left = left
        self.tells = tells

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        on_short: Callable[[Exception], None] | None = None,
        **options: object,
    ) -> list[Completion]:
        given = super().complete(prompt, n=n, **options)[: self.left(len(self.prompts), n)]
        if len(given) < n and self.tells and on_short is not None:
            on_short(BackendError("the quota is spent"))
        return given


def limited(handler: Handler, seen: Seen) -> None:
    """Answer one at a time, and refuse several at once: a limit of tokens a minute."""
    many = seen.body.get("n", 1) > 1
    (error(429, "tokens per minute") if many else answer(completion("A Study")))(handler, seen)


def generous(handler: Handler, seen: Seen) -> None:
    n = seen.body.get("n", 1)
    answer(completion(*(f"A Study {i}" for i in range(n))))(handler, seen)


def asked(p: object) -> list[str]:
    return [pool.query_id for pool in p.store.pools(TASK, purpose="pool")]


def test_pools_an_api_limit_cuts_short_are_asked_for_again_once_it_is_over(
    person: Make, server: Server, llm: OpenAIApi
) -> None:
    server.otherwise = limited
    p = person(llm=llm)
    report = p.fit_head(TASK, calls=160)
    assert (report.pools_made, report.llm_calls) == (0, 8 * MAX_FAILURES)
    assert p.store.pools() == []
    assert report.notes[0] == "3 records got too few answers to keep; a later fit asks again"
    assert "failed 3 times in a row; stopped asking: got 1 of 8 answers: " in report.notes[1]
    assert "got 429 4 times (tokens per minute)" in report.notes[1]

    server.otherwise = generous
    report = p.fit_head(TASK, calls=160)
    assert {"r39", "r38", "r37"} <= set(asked(p))
    assert {len(pool.completions) for pool in p.store.pools(TASK, purpose="pool")} == {8}
    assert report.notes == ()


def test_a_pool_cut_short_now_and_then_is_told_of_though_the_buying_goes_on(person: Make) -> None:
    llm = Failing(lambda nth, n: 1 if n == 8 and nth % 2 else n)
    report = person(llm=llm).fit_head(TASK, calls=96)
    assert 1 < report.pools_made < 12
    short = next(note for note in report.notes if "too few answers to keep" in note)
    assert short.endswith("a later fit asks again: got 1 of 8 answers: the quota is spent")


@pytest.mark.parametrize(("left", "tells", "kept"), [
    (4, True, True), (3, True, False), (1, True, False), (1, False, True),
])  # fmt: skip
def test_a_pool_is_kept_if_half_came_or_nothing_failed(
    person: Make, left: int, tells: bool, kept: bool
) -> None:
    llm = Failing(lambda _nth, n: min(n, left), tells=tells)
    p = person(llm=llm)
    made = p.fit_head(TASK, calls=30).pools_made
    assert bool(made) == bool(asked(p)) == kept
    again = p.fit_head(TASK, calls=30)
    assert again.pools_reused == made
    assert len(set(asked(p))) == len(asked(p)) == made + again.pools_made


def test_one_answer_of_an_api_without_an_error_is_a_pool_and_paid_for_once(person: Make) -> None:
    llm = Failing(lambda _nth, n: 1, tells=False)
    llm.name = API
    p = person(records(6), llm=llm)
    assert p.fit_head(TASK, calls=200).pools_made == len(learned_from(p).pools.items) == 4
    assert p.fit_head(TASK, calls=200).llm_calls == 0


def test_votes_an_error_cuts_short_are_not_kept_and_those_that_name_no_member_are_no_error(
    person: Make,
) -> None:
    rated = [Record(f"film {i}", str(i % 5 + 1), "film_rating", f"f{i}", float(i))
             for i in range(12)]  # fmt: skip
    for tells, made in ((True, 0), (False, 3)):
        llm = Failing(lambda _nth, n: min(n, 1), tells=tells)
        llm.answer = lambda _prompt, n: ["4"] * n
        report = person(rated, llm=llm).fit_head("film_rating", calls=30)
        assert report.pools_made == made


def put(p: object, query: str, *given: Completion, model: str = API, key: str = "") -> None:
    p.store.put_pool(
        f"{key}{query}", task=TASK, model=model, query_id=query, record_ids=("r1",),
        completions=given,
    )  # fmt: skip


GREEDY = Completion("A Study", greedy=True)
PLAIN = Completion("Another Study", zero_shot=True)


def test_pools_of_an_api_that_are_stored_short_teach_nothing_and_are_asked_for_again(
    person: Make,
) -> None:
    llm = ScriptedLLM(titles)
    llm.name = API
    p = person(records(12), llm=llm)
    put(p, "r11", GREEDY)
    put(p, "r10", GREEDY)
    assert learned_from(p).groups.n_groups == 0
    assert p.fit_head(TASK, calls=0).pools_reused == 0
    report = p.fit_head(TASK, calls=20)
    assert (report.pools_made, report.roles[1].n_queries) == (2, 2)
    assert sorted(asked(p)) == ["r10", "r10", "r11", "r11"]
    assert p.fit_head(TASK, calls=0).pools_reused == 2


@pytest.mark.parametrize(("given", "options"), [
    ((GREEDY, GREEDY), {}),  # at temperature 0
    ((GREEDY, Completion("A Study"), PLAIN), {}),
    ((GREEDY, PLAIN), {}),  # two candidates, one of them without records
    ((Completion("A Study"),), {}),
    ((GREEDY,), {"model": "my own"}),
    ((GREEDY,), {"key": WHOLE}),
])  # fmt: skip
def test_small_pools_that_no_limit_cut_short_teach_as_before(
    person: Make, given: tuple[Completion, ...], options: dict[str, str]
) -> None:
    llm = ScriptedLLM(titles)
    llm.name = options.get("model", API)
    p = person(records(12), llm=llm)
    put(p, "r11", *given, **options)
    assert learned_from(p).groups.n_groups == 1
    p.fit_head(TASK, calls=1000)
    assert asked(p).count("r11") == 1


def test_what_keeps_the_answers_without_records_from_coming_is_told(scripted: Callable) -> None:
    def failing(prompt: Prompt, n: int) -> list[str]:
        if not prompt.shots:
            raise BackendError("gone")
        return titles(prompt, n)

    class Told(scripted):
        def complete(self, prompt: Prompt, on_short: object, **options: object) -> list[Completion]:
            return super().complete(prompt, **options)

    told: list[Exception] = []
    prompt = build_prompt(BUILTIN["paper_title"], "query", records(3))
    _, given = sample_pool(
        Told(failing), prompt, Draw(4, 0.8, 16), 2, Callbacks(on_short=told.append)
    )
    assert len(given) == 2
    assert [str(why) for why in told] == ["gone"]


def test_answers_that_broke_off_are_left_out_of_pools(person: Make, scripted) -> None:
    class Filtered(scripted):
        def complete(self, prompt: Prompt, *, n: int = 1, **options: object) -> list[Completion]:
            given = super().complete(prompt, n=n, **options)
            broken = n // 4 if len(self.prompts) < 8 else n
            ended = [replace(c, finish="length") for c in given[broken:]]
            return [*(replace(c, finish="cut") for c in given[:broken]), *ended]

    p = person(llm=Filtered(titles))
    report = p.fit_head(TASK, calls=160)
    kept = p.store.pools(TASK, purpose="pool")
    assert kept
    assert {c.finish for pool in kept for c in pool.completions} == {"length"}
    assert "stopped asking: got 0 of 8 answers: scripted broke off" in report.notes[-1]
