"""Who goes next where several threads share one personalizer, and when to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import ParamSpec, TypeVar

from hydra_edge.errors import CancelledError
from hydra_edge.types import Progress

P = ParamSpec("P")
T = TypeVar("T")


class StopSignal:
    """True for good as soon as one of its sources has said so; may be asked by any thread."""

    def __init__(self, *sources: Callable[[], bool] | None) -> None:
        self._sources = [source for source in sources if source is not None]
        self._said = False

    def __call__(self) -> bool:
        """Whether to stop."""
        self._said = self._said or any(source() for source in self._sources)
        return self._said


def awaitable(work: Callable[P, T]) -> Callable[P, T]:
    """Let work be awaited whatever it raises: a future of Python 3.11 takes no StopIteration.

    An application's LLM or iterator may raise one; the await would never end.
    """

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return work(*args, **kwargs)
        except StopIteration as err:
            raise RuntimeError("What was called raised StopIteration") from err

    return call


def stoppable(
    progress: Progress | None,
    should_stop: Callable[[], bool] | None,
    work: str,
    left: str = "Vectors made are kept, all else is as it was. Begin again to go on.",
) -> Progress | None:
    """Let work be stopped wherever it tells of its progress.

    Parameters
    ----------
    progress
        Told of it first; None if nobody looks.
    should_stop
        None: it cannot be stopped.
    work
        What it is called in the message of the ``CancelledError`` it then ends with.
    left
        How that message ends: what has come of it, and what to do next.
    """
    if should_stop is None:
        return progress

    def tell(stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress(stage, done, total)
        if should_stop():
            raise CancelledError(
                f"{work} was stopped: got {done} of {total} done of stage {stage!r}; expected "
                f"all. {left}"
            )

    return tell


class FitTurn:
    """One fit at a time. Whoever erases goes before the fits that wait, and ends the one under way.

    A callback of what a thread is at may take that thread's turn again.
    """

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._depth = 0  # how often the thread whose turn it is has taken it
        self._change = threading.Condition()
        self._erasing = 0  # how many erase, or wait to
        self._begun = 0  # how many ever began to

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait until no thread fits or erases, and keep it so."""
        with self._turn:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    @contextmanager
    def to_fit(self) -> Iterator[Callable[[], bool]]:
        """Take the turn once nobody waits to erase; gives what tells once somebody does."""
        while True:
            with self.held():
                with self._change:
                    begun = self._begun
                    free = not self._erasing or self._depth > 1
                if free:
                    yield partial(self._has_begun_since, begun)
                    return
            with self._change:
                self._change.wait_for(lambda: not self._erasing)

    def _has_begun_since(self, begun: int) -> bool:
        return self._begun != begun

    @contextmanager
    def to_erase(self) -> Iterator[None]:
        """Tell the fit under way to end, and take the turn after it."""
        with self._change:
            self._erasing += 1
            self._begun += 1
        try:
            with self.held():
                yield
        finally:
            with self._change:
                self._erasing -= 1
                self._change.notify_all()
