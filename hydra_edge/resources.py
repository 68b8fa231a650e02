"""What one personalizer holds open: the store, the base, the encoder, the LLM.

Opens each when it is first needed, whichever thread needs it first.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from weakref import WeakSet

from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.config import Config, way_online
from hydra_edge.encoder import TextEncoder, shared_encoder
from hydra_edge.engine import Engine
from hydra_edge.errors import ClosedError, EgressDeniedError, UnknownModelError
from hydra_edge.llm import LLM
from hydra_edge.llm.oneatatime import OneAtATime
from hydra_edge.paths import Paths
from hydra_edge.store import Store
from hydra_edge.taskfile import read_task_dir

# Of each: its name, when it was changed in two ways, and its size.
_TaskFiles = tuple[tuple[str, int, int, int], ...]
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
        self._began = time.time()
        self._bundle: Bundle | None = None
        self._engine: Engine | None = None
        self._task_files: _TaskFiles = ()
        self._llm = None if llm is None else OneAtATime(llm)
        self._owns_llm = llm is None
        # A thread that holds several locks takes these last: after fitting, the LLM's turn and the
        # engine's turn. While it holds one of them it takes neither the other nor any of those, so
        # that an LLM takes its time to open and nobody who asks for the rest waits for it.
        self._opening = threading.RLock()  # of the base and the engine
        self._opening_llm = threading.RLock()

    @property
    def bundle(self) -> Bundle:
        """The base, verified."""
        self.store.check_process()
        with self._opening:
            if self._bundle is None:
                folder = self.config.bundle
                self._bundle = load_bundle(Path(folder) if folder else None)
            return self._bundle

    @property
    def engine(self) -> Engine:
        """Ranking and pools over the store's records; another one once task files have changed.

        A fit or an answer that is under way ends with the one it began with.
        """
        self.store.check_process()
        with self._opening:
            found = _task_files(self.paths.tasks)  # before they are read: a change between is seen
            if self._engine is None:
                encoder = self._encoder or shared_encoder(self.bundle, threads=self.config.threads)
                self._engine = Engine(
                    self.store, self.bundle, encoder, read_task_dir(self.paths.tasks),
                    check=self.check_open, began=self._began,
                )  # fmt: skip
            elif found != self._task_files:
                self._engine = self._engine.with_tasks(read_task_dir(self.paths.tasks))
            self._task_files = found
            return self._engine

    @property
    def llm(self) -> OneAtATime:
        """The LLM, for one thread at a time; see ``Personalizer.llm``."""
        self.store.check_process()
        with self._opening_llm:
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

    @property
    def llm_name(self) -> str:
        """The name of the LLM given, or opened by now; else empty."""
        llm = self._llm  # not under the lock: whoever asks has the engine's turn
        return "" if llm is None else llm.name

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
        with self._opening_llm:
            llm = self._llm
        if llm is not None:
            with llm.turn(), turn:
                if self._owns_llm:
                    llm.inner.close()

    def leave_llm(self, deadline: float) -> None:
        """Wait until nobody opens or asks the LLM, at most until a moment of ``monotonic``."""
        if self._opening_llm.acquire(timeout=max(0.0, deadline - time.monotonic())):
            llm = self._llm
            self._opening_llm.release()
            if llm is not None:
                with llm.turn(lambda: time.monotonic() >= deadline):
                    pass


def _task_files(folder: Path) -> _TaskFiles:
    """Tell one state of a folder's task files from another; quick, for every query asks."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:  # there need not be any
        for entry in entries:
            if entry.name.endswith(".toml"):
                with suppress(OSError):  # gone meanwhile
                    of = entry.stat()
                    found.append((entry.name, of.st_mtime_ns, of.st_ctime_ns, of.st_size))
    return tuple(sorted(found))


_with_llm: WeakSet[Resources] = WeakSet()
_noting = threading.Lock()  # taken last of all, with nothing waited for


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
