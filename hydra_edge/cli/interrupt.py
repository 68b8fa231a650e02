"""Ctrl-C as a wish: the first ends the work where it can end well, the second at once."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType


class Interrupt:
    """Notes the first Ctrl-C in ``wanted`` instead of raising; ``saying`` is then shown."""

    def __init__(self, saying: str) -> None:
        self.wanted = False
        self._saying = saying

    def __enter__(self) -> Interrupt:
        self._mine = threading.current_thread() is threading.main_thread()
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, self._before)

    def __call__(self) -> bool:
        """Whether it is time to stop."""
        return self.wanted

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        sys.stderr.write(f"\n{self._saying}; press Ctrl-C again to stop at once.\n")
