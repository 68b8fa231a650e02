"""Who goes next at one LLM, and what is made of its answers of a closed set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest
from serving import LONG_S, EchoLLM
from title_writer import history

from hydra_edge.errors import ConfigError
from hydra_edge.llm.oneatatime import OneAtATime
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record

GENRES = ("horror", "comedy", "dark comedy")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Waiting:
    """One who waits for an LLM in a thread of its own, and asks its ``should_stop`` meanwhile."""

    def __init__(self, threads: ThreadPoolExecutor, llm: OneAtATime) -> None:
        self.waits = threading.Event()
        self.gives_up: bool | Exception = False
        self.end: Future[bool] = threads.submit(self._wait, llm)
        assert self.waits.wait(LONG_S)

    def _wait(self, llm: OneAtATime) -> bool:
        with llm.turn(self._should_stop) as mine:
            return mine

    def _should_stop(self) -> bool:
        self.waits.set()
        if isinstance(self.gives_up, Exception):
            raise self.gives_up
        return self.gives_up


def test_who_waits_for_the_llm_goes_before_one_who_asks_again_and_again(threads):
    llm = OneAtATime(EchoLLM())
    holds, waits, served = threading.Event(), threading.Event(), threading.Event()
    taken: list[int] = []

    def again() -> None:
        for i in range(10_000):
            with llm.turn():
                holds.set()
                assert waits.wait(LONG_S)
                taken.append(i)
            if served.is_set():
                break

    asking = threads.submit(again)
    assert holds.wait(LONG_S)
    with llm.turn(lambda: waits.set() or False) as mine:
        before = len(taken)
        served.set()
    asking.result(LONG_S)
    assert mine
    assert before == 1, "the one under way when it began to wait"


@pytest.mark.parametrize("gives_up", [True, RuntimeError("no more")])
def test_who_gives_up_waiting_for_the_llm_keeps_nobody_behind_waiting(threads, gives_up):
    llm = OneAtATime(EchoLLM())
    with llm.turn():
        first = Waiting(threads, llm)
        second = Waiting(threads, llm)
        first.gives_up = gives_up
        if isinstance(gives_up, Exception):
            assert first.end.exception(LONG_S) is gives_up
        else:
            assert first.end.result(LONG_S) is False
        assert not second.end.done()
    assert second.end.result(LONG_S) is True
    with llm.turn() as mine:
        assert mine


def test_should_stop_that_asks_the_llm_while_it_is_waited_for_is_refused(threads):
    llm = OneAtATime(EchoLLM())
    refused = threading.Event()

    def ask_again() -> bool:
        with pytest.raises(ConfigError, match="callback of its own answer"), llm.turn():
            pass
        refused.set()
        return True

    def wait() -> bool:
        with llm.turn(ask_again) as mine:
            return mine

    with llm.turn():
        assert threads.submit(wait).result(LONG_S) is False
    assert refused.is_set()


# ---- closed sets


class Talking(EchoLLM):
    """Says what it was given to say, spelled as it likes; ``given`` is one answer each."""

    def __init__(self, *given: Any) -> None:
        super().__init__()
        self.given = given

    def answers(self, prompt: Prompt, n: int) -> list[Any]:
        return [
            Completion(given, greedy=i == 0) if isinstance(given, str) else given
            for i, given in enumerate((self.given * n)[:n])
        ]


class Plain(Talking):
    """One that knows neither ``should_stop`` nor ``on_candidate``."""

    def complete(self, prompt: Prompt, *, n: int = 1, **_: object) -> list[Any]:
        return self.answers(prompt, n)


def prompt() -> Prompt:
    with Personalizer.from_records(history(4), llm=(llm := EchoLLM())) as p:
        p.generate("a text about speech", n=1)
    return llm.asked[0]


@pytest.mark.parametrize("kind", [Talking, Plain])
@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("The genre is horror.", "horror"),
        ("Dark Comedy!", "dark comedy"),
        ("comedy", "comedy"),
        ("horror or comedy", "horror or comedy"),
        ("western", "western"),
        ("", ""),
    ],
)
def test_answer_of_a_closed_set_is_the_member_it_means(kind, said, taken):
    llm, heard = OneAtATime(kind(said)), []
    answers = llm.complete(prompt(), n=2, choices=GENRES, on_candidate=heard.append)
    assert [a.text for a in answers] == [a.text for a in heard] == [taken] * 2
    assert [a.greedy for a in answers] == [True, False]


def test_answer_that_is_a_member_or_of_no_closed_set_is_left_as_it_came():
    members = ("c", "C", "c++", "4", "4.0")
    for said in members:
        assert OneAtATime(Talking(said)).complete(prompt(), choices=members)[0].text == said
    (answer,) = OneAtATime(Talking("The genre is horror.")).complete(prompt())
    assert answer.text == "The genre is horror."


@pytest.mark.parametrize("given", [None, 7, Completion(cast("str", None))])
def test_what_is_no_answer_of_a_closed_set_is_left_to_whoever_asked(given):
    assert OneAtATime(Talking(given)).complete(prompt(), choices=GENRES) == [given]


def test_generate_counts_answers_that_name_a_label_in_words_of_their_own(hash_encoder):
    records = [
        Record(f"film {i}", ["horror", "comedy"][i % 2], "movie_tag", id=f"m{i}", time=i)
        for i in range(20)
    ]
    llm, heard = Talking("The tag is horror."), []
    with Personalizer.from_records(records, llm=llm, encoder=hash_encoder) as p:
        answer = p.generate("film 3", n=4, on_candidate=heard.append)
    votes = {c.text: c.count for c in answer.candidates if c.count}
    assert votes == {"horror": len(heard)}
    assert {c.text for c in heard} == {"horror"}
    assert not any("none of the LLM's answers" in note for note in answer.notes)


class Generating(Talking):
    """One whose ``complete`` is a generator; notes whether somebody else could ask meanwhile."""

    turns: OneAtATime

    def complete(self, prompt: Prompt, *, n: int = 1, **_: object) -> Iterator[Any]:
        for answer in self.answers(prompt, n):
            with ThreadPoolExecutor(1) as other:
                asked = other.submit(self._can_be_asked).result(LONG_S)
            yield replace(answer, text=f"{answer.text}, {'free' if asked else 'taken'}")

    def _can_be_asked(self) -> bool:
        with self.turns.turn(lambda: True) as mine:
            return mine


def test_llm_written_as_a_generator_works_within_its_turn_and_its_answers_are_told():
    llm, heard = Generating("comedy"), []
    llm.turns = OneAtATime(llm)
    answers = llm.turns.complete(prompt(), n=2, on_candidate=heard.append)
    assert [a.text for a in answers] == [a.text for a in heard] == ["comedy, taken"] * 2
