"""Doing work that must not keep anybody waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

_SOFT = 0.8  # of the time allowed; what is finished then is better than nothing


def within(
    limit_s: float,
    work: Callable[[Callable[[], bool]], T],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Do work on a thread of its own, for at most ``limit_s`` seconds.

    Parameters
    ----------
    work
        Is given what to ask whether to come to an end: True a little before the limit.
    clock
        Seconds, for what ``work`` is told.

    Raises
    ------
    TimeoutError
        If it took longer. The thread may still run: end the process without waiting for it.
    """
    end = clock() + _SOFT * limit_s
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work(lambda: clock() >= end))
        except BaseException as err:
            done.set_exception(err)

    threading.Thread(target=run, daemon=True).start()
    return done.result(timeout=limit_s)
