"""Being told to end: Ctrl-C as a wish, which a second one makes an order, and SIGTERM.

The first Ctrl-C ends the work where it can end well, the second at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def leave_on_sigterm() -> None:
    """Have SIGTERM end the program as an exit, so that nothing half written is left behind."""
    # One that is ignored, or that a program around us takes, stays as it is.
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _leave)


def die_on_sigterm() -> None:
    """Have SIGTERM end the program at once again, where an exit would wait for others."""
    if signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def dying_of_sigint() -> Iterator[None]:
    """Have Ctrl-C end the program at once meanwhile, where an exit would wait for others."""
    # One that is ignored, or that a program around us takes, stays as it is.
    mine = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if mine:
        signal.signal(signal.SIGINT, _die)
    try:
        yield
    finally:
        if mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _die(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


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
