"""Being told to end: Ctrl-C as a wish, which a second one makes an order, and SIGTERM likewise.

The first ends the work where it can end well, the second at once. Whichever came, commands say what
was done and what is left to do; only the exit codes differ.
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
_came: set[int] = set()  # the signals that were taken as Ctrl-C is


def leave_on_sigterm() -> None:
    """Have SIGTERM end the program as Ctrl-C does, so that nothing half written is left behind."""
    # One that is ignored, or that a program around us takes, stays as it is.
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    ):
        signal.signal(signal.SIGTERM, _leave)


def exit_code() -> int:
    """Return the exit code of a program that was told to end."""
    return TERMINATED if signal.SIGTERM in _came else INTERRUPTED


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


def _leave(number: int, _frame: FrameType | None) -> None:
    _came.add(number)
    raise KeyboardInterrupt


class Interrupt:
    """Notes the first Ctrl-C or SIGTERM in ``wanted`` instead of raising; ``saying`` is shown."""

    def __init__(self, saying: str) -> None:
        self.wanted = False
        self._saying = saying

    def __enter__(self) -> Interrupt:
        self._mine = threading.current_thread() is threading.main_thread()
        # One that is ignored, or that a program around us takes, stays as it is.
        self._terminable = self._mine and signal.getsignal(signal.SIGTERM) is _leave
        if self._mine:
            self._before = signal.signal(signal.SIGINT, self._note)
        if self._terminable:
            signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._terminable:
            signal.signal(signal.SIGTERM, _leave)
        if self._mine:
            signal.signal(signal.SIGINT, self._before)

    def __call__(self) -> bool:
        """Whether it is time to stop."""
        return self.wanted

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            _came.add(number)
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        again = (
            "another SIGTERM stops" if number == signal.SIGTERM else "press Ctrl-C again to stop"
        )
        sys.stderr.write(f"\n{self._saying}; {again} at once.\n")
