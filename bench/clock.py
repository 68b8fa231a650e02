"""Measuring: times, ratios of what is run by turns, most memory, and the machine it ran on.

Owns no table. A ratio is the median over pairs A B A B in one process, so that a machine that
slows down on the way slows both sides.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench.guard import BenchError
from hydra_edge import __version__
from hydra_edge.types import JsonDict

LEAST_PAIRS = 7
# What int8 is computed with, best first: it decides the speed, and the encoder's last bits.
ISAS = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx")


def _cpu_s() -> float:
    """Seconds of processor time of this process and of those it waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


# On a shared machine wall time says how busy the others are; with one thread, processor time is
# what a machine at rest would take, but for waiting on the disk.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": _cpu_s}
_chosen = ["wall"]


def use_clock(name: str) -> None:
    """Measure by ``wall`` or ``cpu`` time from now on.

    Raises
    ------
    BenchError
        If there is no such clock.
    """
    if name not in CLOCKS:
        raise BenchError(f"--clock {name!r}: expected one of {', '.join(CLOCKS)}.")
    _chosen[0] = name


def clock_name() -> str:
    """Return which clock is in use."""
    return _chosen[0]


def now_s() -> float:
    """Read the clock in use."""
    return CLOCKS[_chosen[0]]()


@dataclass(frozen=True, slots=True)
class Sample:
    """Times of one thing, in milliseconds, in the order they were taken."""

    times_ms: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Return the time that ``share`` of the runs did not exceed (nearest rank)."""
        ordered = sorted(self.times_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def p50(self) -> float:
        """Median time."""
        return statistics.median(self.times_ms)

    def summary(self) -> JsonDict:
        """Return n and the quantiles people ask for."""
        return {
            "n": len(self.times_ms),
            "p50_ms": round(self.p50, 3),
            "p95_ms": round(self.quantile(0.95), 3),
            "p99_ms": round(self.quantile(0.99), 3),
        }


def spent_ms(call: Callable[[], object]) -> float:
    """Run something once; return the milliseconds it took."""
    started = now_s()
    call()
    return (now_s() - started) * 1000.0


def sample(calls: Sequence[Callable[[], object]]) -> Sample:
    """Run each of some calls once."""
    return Sample(tuple(spent_ms(call) for call in calls))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two things run by turns."""

    ours: Sample
    theirs: Sample

    @property
    def ratio(self) -> float:
        """How many times longer theirs took: the median over the pairs."""
        pairs = zip(self.ours.times_ms, self.theirs.times_ms, strict=True)
        return statistics.median(theirs / ours for ours, theirs in pairs)

    @property
    def difference_ms(self) -> float:
        """How much longer theirs took: the median over the pairs."""
        pairs = zip(self.ours.times_ms, self.theirs.times_ms, strict=True)
        return statistics.median(theirs - ours for ours, theirs in pairs)

    def summary(self) -> JsonDict:
        """Return the ratio and both sides."""
        return {
            "ratio": round(self.ratio, 3),
            "pairs": len(self.ours.times_ms),
            "ours": self.ours.summary(),
            "theirs": self.theirs.summary(),
        }


def by_turns(
    ours: Callable[[int], object], theirs: Callable[[int], object], pairs: int = LEAST_PAIRS
) -> Pairs:
    """Run ours and theirs by turns; both are told the number of the pair, from 0."""
    a: list[float] = []
    b: list[float] = []
    for i in range(pairs):
        a.append(spent_ms(partial(ours, i)))
        b.append(spent_ms(partial(theirs, i)))
    return Pairs(Sample(tuple(a)), Sample(tuple(b)))


def _said(field: str) -> str:
    """Return what /proc/cpuinfo says of the first processor; empty if it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    parts = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in parts if name.strip() == field), "")


def isa() -> str | None:
    """Return the best of ``ISAS`` this processor has; None if it has none or does not say."""
    flags = _said("flags").split()
    return next((name for name in ISAS if name in flags), None)


def cores() -> int | None:
    """Return how many cores this process may use; None if the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def peak_mb() -> float:
    """Return the most memory this process has had resident, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # bytes there, KiB elsewhere


def machine(*, timed: bool = True) -> JsonDict:
    """Return what a figure depends on besides the code; if it is a time, on the load, too."""
    busy = {"clock": _chosen[0], "load_1min": round(os.getloadavg()[0], 2)} if timed else {}
    return busy | {
        "processor": _said("model name") or platform.processor() or platform.machine(),
        "isa": isa(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "default"),
        "versions": {
            "hydra-edge": __version__,
            **{name: version(name) for name in ("numpy", "onnxruntime", "tokenizers")},
        },
        "executable": Path(sys.executable).name,
    }
