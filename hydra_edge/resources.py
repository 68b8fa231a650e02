"""What one personalizer holds open: the store, the base, the encoder, the LLM.

Opens each when it is first needed, whichever thread needs it first.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from pathlib import Path

from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.config import Config, Paths, way_online
from hydra_edge.encoder import Encoder, TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import ClosedError, EgressDeniedError
from hydra_edge.llm import LLM
from hydra_edge.store import Store
from hydra_edge.taskfile import read_task_dir
from hydra_edge.turns import OneAtATime


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
                encoder = self._encoder or Encoder(self.bundle, threads=self.config.threads)
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
            if self._llm is None:
                from hydra_edge.llm.models import open_llm

                self._llm = OneAtATime(open_llm(self.config.model, self.config, self.paths))
            if self._llm.is_remote and self.config.offline:
                raise EgressDeniedError(
                    f"{self._llm.name} is remote and --offline forbids every remote call. "
                    f"Use a local model with -m, or {way_online(self.paths)}."
                )
            return self._llm

    def check_open(self) -> None:
        """Refuse to go on once closing has begun."""
        if self.closing.is_set():
            raise ClosedError(
                "This personalizer is closed: got a call after close(); expected it before. "
                "Open it again."
            )

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
