"""How many threads to decode with on this machine, as it is now.

One a core that nobody else uses, and at least one: llama.cpp's workers spin while they wait for
each other, so a core shared with other work slows all of them (two threads on two busy cores
took 3 to 9 times as long as one).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

_LEAST_S = 0.2  # the kernel counts in hundredths: a shorter look would round to nonsense
_STALE_S = 10.0  # a longer look says what was, not what is
_MEAN_S = 60.0  # how fast the system's mean forgets


@dataclass(frozen=True, slots=True)
class Look:
    """CPU seconds spent up to a moment: on the cores we may use by anybody, and by us."""

    at: float
    busy: float | None  # None where the system does not tell
    own: float


class Machine:
    """What the system tells; each answer is 0 or None where it does not."""

    def look(self) -> Look:
        """Read the kernel's count for the cores we may use, if it has one, and ours."""
        return Look(time.monotonic(), self._busy(), time.process_time())

    @staticmethod
    def _busy() -> float | None:
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
            ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
            tick = os.sysconf("SC_CLK_TCK")
        except (AttributeError, OSError, ValueError):
            return None
        # user, nice, system, idle, iowait, irq, softirq, steal; what guests use is part of user.
        spent = [line.split()[1:9] for line in lines if line.split(" ", 1)[0] in ours]
        busy = sum(int(ticks) for row in spent for i, ticks in enumerate(row) if i not in {3, 4})
        return busy / tick

    def mean(self) -> float:
        """Return the mean of the last minute, in cores in use by anybody."""
        try:
            return os.getloadavg()[0]
        except (AttributeError, OSError):
            return 0.0

    def running(self) -> float:
        """Count what runs or wants to at this moment, beside the caller."""
        try:
            counts = Path("/proc/loadavg").read_text(encoding="ascii").split()[3]
            return int(counts.split("/")[0]) - 1.0
        except (OSError, ValueError, IndexError):
            return 0.0

    def cores(self) -> int:
        """Count the cores we may use, not hyper-threads, within the quota of a container."""
        if hasattr(os, "sched_getaffinity"):
            usable = len(os.sched_getaffinity(0))
        else:
            usable = os.cpu_count() or 1
        return max(1, min(usable, _physical_cores() or usable, _quota() or usable))


class Threads:
    """Chooses anew whenever it is asked.

    Parameters
    ----------
    wanted
        Always this many; 0 lets the machine and its load decide.
    machine
        What to learn of the load from.
    """

    def __init__(self, wanted: int = 0, machine: Machine | None = None) -> None:
        self._wanted = wanted
        self._machine = machine or Machine()
        self._last: Look | None = None
        self._others = 0.0  # cores in use by others, as last known
        self._ours = 0.0  # our part of the mean

    def now(self) -> int:
        """Return how many threads to use for the answer about to be written."""
        if self._wanted > 0:
            return self._wanted
        self._others = self._observe()
        return max(1, self._machine.cores() - round(self._others))

    def _observe(self) -> float:
        """Return what others use: since the last look, where the system tells, else on average.

        Our own use is taken off.
        """
        last, look = self._last, self._machine.look()
        if last is None:  # we have just begun: all of it is others'
            self._last = look
            return max(self._machine.mean(), self._machine.running())
        if (passed := look.at - last.at) < _LEAST_S:
            return self._others
        self._last = look
        own = (look.own - last.own) / passed
        if look.busy is None or last.busy is None:
            self._ours = own + (self._ours - own) * math.exp(-passed / _MEAN_S)
            return max(0.0, self._machine.mean() - self._ours)
        if passed > _STALE_S:
            return self._machine.running()
        return max(0.0, (look.busy - last.busy) / passed - own)


def _physical_cores() -> int:
    """Count cores, not hyper-threads, where Linux tells; 0 elsewhere."""
    siblings = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        try:
            siblings.add(path.read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError):
            return 0
    return len(siblings)


def _quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores that a container may use; 0 if it has no limit."""
    try:
        limit, period = path.read_text(encoding="ascii").split()
        return max(1, int(limit) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return 0
