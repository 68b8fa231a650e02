"""Who goes next among fits and what erases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from serving import LONG_S

from hydra_edge.turns import FitTurn


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Watched(FitTurn):
    """Says who takes the turn, and lets whoever erases take it when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.line: list[str] = []  # who came to take the turn, and who had it
        self.came = threading.Semaphore(0)
        self.taken = threading.Semaphore(0)
        self.let_erase = threading.Event()
        self.eraser: int | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        self.came.release()
        if threading.get_ident() == self.eraser:
            assert self.let_erase.wait(LONG_S)
        with super().held():
            self.taken.release()
            yield

    def fit(self, name: str, until: Callable[[Callable[[], bool]], object] | None = None) -> None:
        with self.to_fit() as is_ended:
            self.line.append(name)
            if until is not None:
                until(is_ended)

    def erase(self) -> None:
        self.eraser = threading.get_ident()
        with self.to_erase():
            self.line.append("erased")


def test_fit_that_waits_lets_whoever_erases_go_first_though_its_turn_comes(threads):
    turn, over = Watched(), threading.Event()
    ended: list[bool] = []

    def fitting(is_ended: Callable[[], bool]) -> None:
        ended.append(is_ended())
        assert over.wait(LONG_S)
        ended.append(is_ended())

    def come(*who: Any) -> Future[None]:
        coming = threads.submit(*who)
        assert turn.came.acquire(timeout=LONG_S)
        return coming

    first = come(turn.fit, "first", fitting)
    assert turn.taken.acquire(timeout=LONG_S)
    second, erasing = come(turn.fit, "second"), come(turn.erase)
    over.set()
    first.result(LONG_S)
    assert turn.taken.acquire(timeout=LONG_S), "the second's: nobody else tries to take it"
    turn.let_erase.set()
    erasing.result(LONG_S)
    second.result(LONG_S)
    assert ended == [False, True]
    assert turn.line == ["first", "erased", "second"]


def test_fit_and_erasing_within_each_other_on_one_thread_wait_for_nobody():
    turn = FitTurn()
    with turn.to_erase(), turn.to_fit() as is_ended:
        assert not is_ended()
        with turn.to_erase():
            assert is_ended()
    with turn.to_fit() as is_ended:
        assert not is_ended()
