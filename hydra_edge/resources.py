"""What one personalizer holds open: the store, the base, the encoder, the LLM.

Opens each when it is first needed, whichever thread needs it first.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from weakref import WeakSet

from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.config import Config, way_online
from hydra_edge.encoder import TextEncoder, shared_encoder
from hydra_edge.engine import Engine
from hydra_edge.errors import ClosedError, EgressDeniedError, UnknownModelError
from hydra_edge.llm import LLM
from hydra_edge.paths import Paths
from hydra_edge.store import Store
from hydra_edge.taskfile import read_task_dir
from hydra_edge.turns import OneAtATime

# How long the end of the interpreter waits for LLMs to be left.
_LEAVE_S = 10.0


class Resources:
    """One person's store, and what is opened for it; any thread may ask for any of it.

    Parameters
    ----------
    store
        Where the records are; stays the caller's to close.
    config, paths
        Say where the base, the user's own tasks and the models are.
    llm
        Stays the caller's to close; None: the configured model, opened when first needed.
    encoder
        None: that of the base.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        paths: Paths,
        llm: LLM | None = None,
        encoder: TextEncoder | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.paths = paths
        self.closing = threading.Event()
        self.leaving = threading.Event()  # the program ends: all goes on but the LLM
        self._encoder = encoder
        self._bundle: Bundle | None = None
        self._engine: Engine | None = None
        self._llm = None if llm is None else OneAtATime(llm)
        self._owns_llm = llm is None
        self._opening = threading.RLock()

    @property
    def bundle(self) -> Bundle:
        """The base, verified."""
        with self._opening:
            if self._bundle is None:
                folder = self.config.bundle
                self._bundle = load_bundle(Path(folder) if folder else None)
            return self._bundle

    @property
    def engine(self) -> Engine:
        """Ranking and pools over the store's records."""
        with self._opening:
            if self._engine is None:
                encoder = self._encoder or shared_encoder(self.bundle, threads=self.config.threads)
                tasks = read_task_dir(self.paths.tasks)
                self._engine = Engine(
                    self.store, self.bundle, encoder, tasks, check=self.check_open
                )
            return self._engine

    @property
    def llm(self) -> OneAtATime:
        """The LLM, for one thread at a time; see ``Personalizer.llm``."""
        with self._opening:
            self.check_open()
            if self.leaving.is_set():
                raise ClosedError(
                    "The LLM cannot be asked: got a call while the program ends; expected it "
                    "before. Ask earlier, or call close() first in an exit handler of your own."
                )
            if self._llm is None:
                from hydra_edge.llm.models import open_llm

                _leave_at_exit(self)
                self._llm = OneAtATime(open_llm(self.config.model, self.config, self.paths))
            if self._llm.is_remote and self.config.offline:
                raise EgressDeniedError(
                    f"{self._llm.name} is remote and --offline forbids every remote call. "
                    f"Use a local model with -m, or {way_online(self.paths)}."
                )
            return self._llm

    def llm_to_fit(self, *, wanted: bool) -> tuple[LLM | None, str]:
        """Return the LLM to fit with, or None and why; none has to be installed for a fit."""
        if not wanted:
            return None, "no LLM was asked: candidates bought earlier and choices only"
        try:
            return self.llm, ""
        except UnknownModelError as err:
            if self.config.model:
                raise
            return None, f"no LLM: the adapter stays at the shared head. {err}"

    def check_open(self) -> None:
        """Refuse to go on once closing has begun."""
        if self.closing.is_set():
            raise ClosedError(
                "This personalizer is closed: got a call after close(); expected it before. "
                "Open it again."
            )

    def is_over(self) -> bool:
        """Whether an answer or a fit is to end: the personalizer closes, or the program ends."""
        return self.closing.is_set() or self.leaving.is_set()

    def close_llm(self, turn: AbstractContextManager[object]) -> None:
        """Wait until nobody asks the LLM, and close it if it was opened here.

        ``turn`` is taken for that, too: prompts are rendered within it, beside an answer.
        """
        with self._opening:
            llm = self._llm
        if llm is not None:
            with llm.turn(), turn:
                if self._owns_llm:
                    llm.inner.close()

    def leave_llm(self, deadline: float) -> None:
        """Wait until nobody opens or asks the LLM, at most until a moment of ``monotonic``."""
        if self._opening.acquire(timeout=max(0.0, deadline - time.monotonic())):
            llm = self._llm
            self._opening.release()
            if llm is not None:
                with llm.turn(lambda: time.monotonic() >= deadline):
                    pass


_with_llm: WeakSet[Resources] = WeakSet()
_noting = threading.Lock()


def _leave_at_exit(resources: Resources) -> None:
    """Have an LLM opened here left before the interpreter ends, also by daemon threads.

    A native LLM still at work while its library is taken down ends the process with a signal.
    """
    with _noting:
        _with_llm.add(resources)
        atexit.unregister(_leave_llms)
        atexit.register(_leave_llms)


def _leave_llms() -> None:
    """Tell all who ask an LLM to stop, and wait until they have."""
    with _noting:
        held = list(_with_llm)
    for resources in held:
        resources.leaving.set()
    deadline = time.monotonic() + _LEAVE_S
    for resources in held:
        resources.leave_llm(deadline)


def _note_anew() -> None:
    """Forget, in a forked child, the LLMs of its parent: no thread that asks them is there."""
    _with_llm.clear()
    _noting.release()


if hasattr(os, "register_at_fork"):  # no other thread is to hold the lock in a child
    os.register_at_fork(
        before=_noting.acquire, after_in_parent=_noting.release, after_in_child=_note_anew
    )
