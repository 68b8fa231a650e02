"""How many threads to decode with on this machine, as it is now."""

from __future__ import annotations

import os
from pathlib import Path


def choose_threads(wanted: int) -> int:
    """Return how many threads to decode with; 0 lets the machine decide.

    One a core that nobody else uses, and at least one: llama.cpp's workers spin while they wait
    for each other, so a core shared with other work slows all of them (two threads on two busy
    cores took 3 to 9 times as long as one).
    """
    if wanted > 0:
        return wanted
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    cores = min(usable, _physical_cores() or usable)
    return max(1, cores - round(_load()))


def _load() -> float:
    """Cores in use by others: the last minute's mean, or what runs now if that is more."""
    try:
        mean = os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0
    try:
        running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return mean
    return max(mean, running - 1.0)  # one of those running is this thread


def _physical_cores() -> int:
    """Count cores, not hyper-threads, where Linux tells; 0 elsewhere."""
    siblings = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list"):
        try:
            siblings.add(path.read_text(encoding="ascii").strip())
        except (OSError, UnicodeDecodeError):
            return 0
    return len(siblings)
