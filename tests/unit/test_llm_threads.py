"""Threads: as many as cores are free."""

import os

import pytest

from hydra_edge.llm import threads as threads_module
from hydra_edge.llm.threads import choose_threads


@pytest.mark.parametrize(
    ("cores", "load", "threads"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 0.9, 1), (2, 40.0, 1), (8, 2.1, 6), (1, 0.0, 1)],
)
def test_threads_leave_others_their_cores(monkeypatch, cores, load, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(threads_module, "_physical_cores", lambda: cores)
    monkeypatch.setattr(threads_module, "_load", lambda: load)
    assert choose_threads(0) == threads
    assert choose_threads(3) == 3


@pytest.mark.parametrize(("usable", "physical", "threads"), [(8, 4, 4), (2, 4, 2), (3, 0, 3)])
def test_threads_are_at_most_cores_and_what_is_allowed(monkeypatch, usable, physical, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
    monkeypatch.setattr(threads_module, "_physical_cores", lambda: physical)
    monkeypatch.setattr(threads_module, "_load", lambda: 0.0)
    assert choose_threads(0) == threads


def test_load_is_at_least_the_mean_of_the_last_minute(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (77.0, 0.0, 0.0))
    assert threads_module._load() >= 77.0
