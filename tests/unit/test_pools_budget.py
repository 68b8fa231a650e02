"""What a fit may ask of an LLM is counted by what was asked, whatever came of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import cli_runner
import numpy as np
import pytest
from conftest import ScriptedLLM

from hydra_edge import buying, pools
from hydra_edge.buying import MAX_FAILURES
from hydra_edge.candidates import Sampling
from hydra_edge.config import Config
from hydra_edge.errors import BackendError, ConfigError, ContextLengthError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record

TASKS = ("note_title", "paper_title", "commit_subject")
FRUITS = ("apples", "pears", "plums", "figs", "dates", "limes", "kiwis", "nuts")
Make = Callable[..., Personalizer]


class Counting(ScriptedLLM):
    """Counts the answers it is asked for, and fails with those that are told by ``fails``."""

    def __init__(
        self, fails: Callable[[Prompt, int], Exception | None], *, is_remote: bool = True
    ) -> None:
        super().__init__(lambda _prompt, n: ["a title"] * n, is_remote=is_remote)
        self.fails = fails
        self.asked = 0
        self.sent: set[str] = set()

    def complete(self, prompt: Prompt, *, n: int = 1, **options: object) -> list[Completion]:
        self.asked += n
        self.sent.add(self.render(prompt))
        if (error := self.fails(prompt, n)) is not None:
            raise error
        return super().complete(prompt, n=n, **options)


def broken(_prompt: Prompt, _n: int) -> Exception:
    return BackendError("it is down")


def broken_alone(_prompt: Prompt, n: int) -> Exception | None:
    return BackendError("it is down") if n == 1 else None


def no_room(_prompt: Prompt, _n: int) -> Exception:
    return ContextLengthError("no room")


def history(task: str) -> list[Record]:
    return [
        Record(f"a text of {word} for {task}", f"{word} it is", task, id=f"{task}-{i}", time=i)
        for i, word in enumerate(FRUITS)
    ]


@pytest.fixture
def person(hash_encoder) -> Iterator[Make]:
    made: list[Personalizer] = []

    def make(llm: Counting, **config: object) -> Personalizer:
        p = Personalizer.from_records(
            history(TASKS[0]), llm=llm, encoder=hash_encoder,
            config=Config(**config),
        )  # fmt: skip
        made.append(p)
        return p

    yield make
    for p in made:
        p.close()


@pytest.mark.parametrize("fails", [broken, broken_alone])
@pytest.mark.parametrize(
    ("calls", "often"), [(10, ""), (24, " 2 times in a row"), (34, " 3 times in a row")]
)
def test_fit_asks_no_more_than_allowed_of_an_llm_that_fails(
    person: Make, fails: Callable, calls: int, often: str
) -> None:
    llm = Counting(fails)
    report = person(llm).fit_head(TASKS[0], calls=calls)
    assert 0 < llm.asked <= calls
    assert report.llm_calls == llm.asked
    assert f"The LLM failed{often}; stopped asking: it is down" in report.notes


def test_fit_asks_no_more_than_allowed_of_a_remote_llm_without_room(person: Make) -> None:
    llm = Counting(no_room)
    report = person(llm, records=0).fit_head(TASKS[0], calls=24)
    assert report.llm_calls == llm.asked <= 24
    assert llm.asked > 0


def works(_prompt: Prompt, _n: int) -> None: ...


@pytest.mark.parametrize(
    ("fails", "calls", "config"),
    [(works, 26, {}), (works, 26, {"records": 0}), (broken, 28, {}), (broken_alone, 29, {})],
)
def test_fit_sends_a_remote_llm_nothing_that_fit_prompts_had_not_shown(
    person: Make, fails: Callable, calls: int, config: dict[str, int]
) -> None:
    llm = Counting(fails)
    p = person(llm, **config)
    shown = set(p.fit_prompts(TASKS[0], calls=calls))
    p.fit_head(TASKS[0], calls=calls)
    assert llm.sent
    assert llm.sent <= shown


def test_fit_remote_llm_with_a_time_alone_is_refused_before_anything_is_learned(
    person: Make,
) -> None:
    llm = Counting(works)
    p = person(llm)
    with pytest.raises(ConfigError, match=r"got a time alone; expected .* calls=N"):
        p.fit_head(TASKS[0], budget_s=600.0)
    assert p.store.heads() == []
    assert p.fit_prompts(TASKS[0]) == []
    p.fit_head(TASKS[0], budget_s=0.0)
    assert llm.asked == 0
    assert p.fit_head(TASKS[0], budget_s=600.0, calls=10).llm_calls == llm.asked > 0
    assert p.store.heads()


def test_fit_of_no_time_asks_a_local_llm_nothing(person: Make) -> None:
    llm = Counting(works, is_remote=False)
    assert person(llm).fit_head(TASKS[0], budget_s=0.0).llm_calls == llm.asked == 0


def test_fit_tells_how_many_of_the_answers_allowed_it_has_asked_for(person: Make) -> None:
    llm, told = Counting(works), []
    person(llm).fit_head(TASKS[0], calls=24, progress=lambda *at: told.append(at))
    candidates = [(done, total) for stage, done, total in told if stage == "candidates"]
    assert candidates[-1] == (llm.asked, 24)
    assert len(candidates) == 2, "after each record"


def test_fit_tells_of_the_time_after_each_record_in_seconds(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, told = [0.0], []
    monkeypatch.setattr(buying, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(_prompt: Prompt, _n: int) -> None:
        now[0] += 8.0

    llm = Counting(slow, is_remote=False)
    person(llm).fit_head(TASKS[0], budget_s=29.5, progress=lambda *at: told.append(at))
    seconds = [(done, total) for stage, done, total in told if stage == buying.SECONDS]
    assert now[0] > 29.5
    assert seconds[0][0] > 0, "the first record is in it"
    assert seconds[-1] == (30, 30)
    assert all(stage != buying.ANSWERS for stage, _, _ in told)


def test_fit_stopped_after_one_pool_says_so(person: Make) -> None:
    llm = Counting(works)
    report = person(llm).fit_head(TASKS[0], calls=60, should_stop=lambda: llm.asked >= 10)
    assert "it was stopped: 1 pool made; fit again to go on" in report.notes


def test_fit_prompts_too_long_for_a_local_llm_cost_nothing(person: Make) -> None:
    llm = Counting(no_room, is_remote=False)
    report = person(llm, records=0).fit_head(TASKS[0], calls=10)
    assert report.llm_calls == 0
    assert f"{len(FRUITS) - 2} records are longer than scripted has room for" in report.notes


def test_fit_asks_about_records_a_head_could_learn_from_before_others(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "COMPARED", 2)
    p = person(Counting(works))
    history = p.engine.history(p.engine.task(TASKS[0]))
    head = p.engine.active(history.task, "reranker")
    purchase = pools.Purchase(p.engine, p.llm, head, history, np.array([3, 5]), Sampling(8, 4, 0.8))
    plan = [
        (record.id[-1], [request.purpose for request in requests])
        for record, requests in purchase.plan()
    ]
    assert [name for name, _ in plan] == ["5", "3", "7", "6", "4", "2"]
    # Plain answers, which only the report needs, are bought for the first alone.
    assert [asked for _, asked in plan] == [["pool", "zero", "rag"]] * 2 + [["pool"]] * 4


def test_fit_reports_the_time_the_llm_took_and_nothing_beside_it(
    person: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(buying, "time", SimpleNamespace(monotonic=lambda: clock["now"]))

    def takes_a_while(_prompt: Prompt, _n: int) -> None:
        clock["now"] += 2.0

    def takes_long(_stage: str, _done: int, _total: int) -> None:
        clock["now"] += 100.0

    llm = Counting(takes_a_while, is_remote=False)
    report = person(llm).fit_head(TASKS[0], budget_s=300.0, progress=takes_long)
    assert report.llm_seconds == 2.0 * len(llm.prompts) > 0

    failing = Counting(lambda p, n: takes_a_while(p, n) or broken(p, n), is_remote=False)
    report = person(failing).fit_head(TASKS[0], budget_s=300.0)
    assert report.llm_seconds == 2.0 * MAX_FAILURES


def test_fit_stopped_in_the_middle_of_a_pool_says_what_was_asked(person: Make) -> None:
    class Slow(Counting):
        def complete(
            self, prompt: Prompt, *, n: int = 1, should_stop: object = None, **options: object
        ) -> list[Completion]:
            return super().complete(prompt, n=n, **options)[:1]

    llm = Slow(lambda _prompt, _n: None)
    p = person(llm)
    report = p.fit_head(TASKS[0], calls=100, should_stop=lambda: llm.asked > 0)
    assert report.llm_calls == llm.asked > 0
    assert p.store.pools() == []


def test_fit_records_forgotten_while_it_asks_are_counted_all_the_same(person: Make) -> None:
    def forgetting(_prompt: Prompt, _n: int) -> None:
        p.store.forget([f"{TASKS[0]}-0"])

    llm = Counting(forgetting)
    p = person(llm)
    report = p.fit_head(TASKS[0], calls=100)
    assert report.llm_calls == llm.asked > 0


def test_fit_head_of_all_tasks_shares_what_is_allowed_though_the_llm_fails() -> None:
    llm = Counting(broken)

    def opener(user, *, create, config, paths):
        return Personalizer.open(user, create=create, config=config, paths=paths, llm=llm)

    with Personalizer.open(create=True) as me:
        for task in TASKS:
            me.add(history(task))
    done = cli_runner.call("fit-head", "--calls", "34", "--yes", "--json", opener=opener)

    assert done.exit_code == 0, done.stderr
    reports = json.loads(done.stdout)["reports"]
    assert len(reports) == len(TASKS)
    assert sum(report["llm_calls"] for report in reports) == llm.asked <= 34
