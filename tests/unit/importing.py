"""Imports as their tests watch them: the memory one takes, and one that is told to stop."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from hydra_edge.errors import CancelledError
from hydra_edge.importers import ImportLog
from hydra_edge.types import Record


def peak_of(read: Callable[[], Iterable[Record]]) -> int:
    """Read records one by one; return how many bytes that took at the most."""
    tracemalloc.start()
    try:
        for _ in read():
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def stopped_at_the_third(read: Callable[[ImportLog], object]) -> list[int]:
    """Read until the log is watched a third time; return how much was done each time."""
    seen: list[int] = []

    def stop() -> None:
        seen.append(log.done)
        if len(seen) == 3:
            raise CancelledError

    log = ImportLog(watch=stop)
    with pytest.raises(CancelledError):
        read(log)
    return seen
