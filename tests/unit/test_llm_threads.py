"""Threads: as many as cores are free, chosen anew as the load changes."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hydra_edge.llm import threads as module
from hydra_edge.llm.threads import Look, Machine, Threads


class Scripted(Machine):
    """A machine whose clock and load a test moves."""

    def __init__(self, cores=2, mean=0.0, running=0.0):
        self._cores, self._mean, self._running = cores, mean, running
        self.at = self.busy = self.own = 0.0

    def look(self):
        return Look(self.at, self.busy, self.own)

    def mean(self):
        return self._mean

    def running(self):
        return self._running

    def cores(self):
        return self._cores

    def passes(self, seconds, *, own=0.0, others=0.0):
        """Let time pass in which we and others used so many cores."""
        self.at += seconds
        self.own += own * seconds
        self.busy += (own + others) * seconds


@pytest.mark.parametrize(
    ("cores", "load", "threads"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 0.9, 1), (2, 40.0, 1), (8, 2.1, 6), (1, 0.0, 1)],
)
def test_first_choice_leaves_others_their_cores(cores, load, threads):
    assert Threads(0, Scripted(cores, mean=load)).now() == threads
    assert Threads(0, Scripted(cores, running=load)).now() == threads


def test_number_that_was_asked_for_is_kept_whatever_the_load():
    assert Threads(3, Scripted(2, mean=9.0)).now() == 3


def test_own_work_is_nobody_elses_load():
    machine = Scripted(2)
    threads = Threads(0, machine)
    assert threads.now() == 2
    machine._mean = machine._running = 2.0  # ours
    machine.passes(3.0, own=2.0)
    assert threads.now() == 2


def test_choice_follows_a_neighbour_that_comes_and_goes():
    machine = Scripted(2)
    threads = Threads(0, machine)
    chosen = [threads.now()]
    for others in (1.0, 1.0, 0.0):
        machine.passes(1.0, own=1.0, others=others)
        chosen.append(threads.now())
    assert chosen == [2, 1, 1, 2]


def test_time_too_short_to_tell_changes_nothing_and_is_not_lost():
    machine = Scripted(4)
    threads = Threads(0, machine)
    threads.now()
    machine.passes(0.1, others=3.0)
    assert threads.now() == 4
    machine.passes(0.1, others=3.0)
    assert threads.now() == 1


def test_after_a_long_pause_only_what_runs_now_counts():
    machine = Scripted(4)
    threads = Threads(0, machine)
    threads.now()
    machine.passes(3600.0, others=3.0)
    machine._running = 1.0
    assert threads.now() == 3


class OnlyMean(Scripted):
    """A machine that has no more to tell than the mean of the last minute, as macOS."""

    def look(self):
        return replace(super().look(), busy=None)

    def passes(self, seconds, *, own=0.0, others=0.0):
        super().passes(seconds, own=own)
        now = own + others
        self._mean = now + (self._mean - now) * math.exp(-seconds / 60)


def test_system_that_tells_only_a_mean_is_asked_again():
    machine = OnlyMean(8, mean=7.6)
    threads = Threads(0, machine)
    assert threads.now() == 1
    machine.passes(3600.0)
    assert threads.now() == 8
    machine.passes(3600.0, others=7.0)
    assert threads.now() == 1


def test_own_part_of_a_mean_is_nobody_elses_load():
    machine = OnlyMean(8, mean=4.0)
    threads = Threads(0, machine)
    assert threads.now() == 4
    for seconds in (1.0, 3.0, 20.0, 300.0):
        machine.passes(seconds, own=4.0, others=4.0)
        assert threads.now() == 4
    machine.passes(120.0, own=1.0)
    assert threads.now() == 7


def test_look_counts_our_own_seconds_among_all():
    if not Path("/proc/stat").exists():
        assert Machine().look().busy is None
        return
    before = Machine().look()
    while Machine().look().own - before.own < 0.1:
        sum(range(10_000))
    after = Machine().look()
    assert after.at > before.at
    assert after.busy - before.busy >= 0.05  # the kernel's hundredths, of two counts


@pytest.mark.parametrize(("usable", "physical", "cores"), [(8, 4, 4), (2, 4, 2), (3, 0, 3)])
def test_cores_are_physical_ones_that_are_allowed(monkeypatch, usable, physical, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
    monkeypatch.setattr(module, "_physical_cores", lambda: physical)
    monkeypatch.setattr(module, "_quota", lambda: 0)
    assert Machine().cores() == cores
    monkeypatch.setattr(module, "_quota", lambda: 2)
    assert Machine().cores() == 2


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000", 0), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("", 0)],
)
def test_quota_of_a_container_is_whole_cores(tmp_path, text, cores):
    path = tmp_path / "cpu.max"
    assert module._quota(path) == 0
    path.write_text(text)
    assert module._quota(path) == cores


def test_mean_is_the_systems_own(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (77.0, 0.0, 0.0))
    assert Machine().mean() == 77.0
