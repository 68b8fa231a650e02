"""Growth curves for the page: drawn piece by piece, so that everything else goes on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import get_args

from hydra_edge import portrait
from hydra_edge.errors import CancelledError, StoreError
from hydra_edge.personalizer import Personalizer
from hydra_edge.portrait import Growth
from hydra_edge.server import page_json as shapes
from hydra_edge.store import Revision
from hydra_edge.turns import stoppable
from hydra_edge.types import JsonDict, Progress, Role

# How long others may take the engine's turn between two pieces of long work.
_PAUSE_S = 0.005
_PIECE = 500  # records whose vectors are looked up at a time
_ROLES: tuple[Role, ...] = get_args(Role)


class Curves:
    """Draws how utility grew with the history, and remembers the curves drawn before.

    One is drawn at a time: whoever calls sees to it.
    """

    def __init__(self) -> None:
        self._grown: dict[tuple[str, Role], tuple[tuple[Revision, int | None], Growth | None]] = {}

    def draw(self, person: Personalizer, name: str, should_stop: Callable[[], bool]) -> JsonDict:
        """Return the curves of a task in both roles, drawn anew where records go meanwhile.

        Raises
        ------
        CancelledError
            If it was stopped.
        """
        while True:
            as_read = person.store.revision().rewrites
            try:
                return self._drawn(person, name, should_stop)
            except StoreError as err:
                if person.store.revision().rewrites == as_read:
                    raise
                if should_stop():
                    raise CancelledError(str(err)) from err

    def _drawn(self, person: Personalizer, name: str, should_stop: Callable[[], bool]) -> JsonDict:
        curves = []
        with _in_pieces(person) as between:
            reading, drawing = (
                stoppable(told, should_stop, "The growth curve") for told in (None, between)
            )
            task = person.task(name)
            for role in _ROLES:
                now = _state(person, task.name, role)
                seen, curve = self._grown.get((task.name, role), (None, None))
                if seen != now:
                    _embed(person, task.name, drawing)
                    # Records may have been added meanwhile.
                    task, now = person.task(name), _state(person, task.name, role)
                    history = person.engine.history(task, progress=reading)
                    curve = portrait.growth(
                        person.engine, history, role, shown=person.config.records, progress=drawing
                    )
                    self._grown[task.name, role] = now, curve
                curves.append({"role": role, "growth": shapes.growth_json(curve)})
        return {"task": task.name, "roles": curves}


def _state(person: Personalizer, task: str, role: Role) -> tuple[Revision, int | None]:
    """Return what a curve depends on."""
    head = person.store.head(task, role)
    return person.store.revision(), None if head is None else head.version


def _embed(person: Personalizer, task: str, progress: Progress | None) -> None:
    """Make the vectors of a task's records that are not made yet.

    A history's are made in one go, during which nobody else may have the engine.
    """
    done, encoder = 0, person.engine.encoder
    while part := person.store.records(task=task, limit=_PIECE, offset=done):
        encoder.encode([text for r in part for text in (r.input, r.output)], progress=progress)
        done += len(part)
        if progress is not None:  # where all had been made it was told of none
            progress("embed", done, person.store.count(task))


@contextmanager
def _in_pieces(person: Personalizer) -> Iterator[Progress]:
    """Take one's turn at the engine for long work; gives what lets others have it in between.

    That raises StoreError once records were rewritten or forgotten meanwhile.
    """
    with ExitStack() as turn:
        turn.enter_context(person.working())
        as_read = person.store.revision().rewrites

        def between(_stage: str, _done: int, _total: int) -> None:
            turn.close()
            time.sleep(_PAUSE_S)
            turn.enter_context(person.working())
            if person.store.revision().rewrites != as_read:
                raise StoreError(
                    "The growth curve was given up: got records that were rewritten or forgotten "
                    "while it was drawn; expected them as they were. Look again."
                )

        yield between
