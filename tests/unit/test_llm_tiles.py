"""A library that would die on this processor's matrix tiles is used without them."""

from __future__ import annotations

import importlib.util
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from hydra_edge.cli import doctor
from hydra_edge.config import Config
from hydra_edge.llm import tiles
from hydra_edge.paths import Paths

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="tried in a forked child only")
INFO = "CPU : AVX512 = 1 | AMX_INT8 = {} | REPACK = 1 | "


def library(amx: int) -> ModuleType:
    made = ModuleType("llama_cpp")
    vars(made)["llama_print_system_info"] = lambda: INFO.format(amx).encode()
    return made


@pytest.fixture
def try_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., bool]:
    def tried(child: Callable[..., object]) -> bool:
        tiles.tiles_work.cache_clear()
        monkeypatch.setattr(tiles, "_read_a_prompt", child)
        return tiles.tiles_work(library(1), tmp_path / "m.gguf")

    return tried


def test_a_library_built_for_tiles_says_so() -> None:
    assert tiles.has_tiles(library(1))
    assert not tiles.has_tiles(library(0))


def test_who_dies_of_an_illegal_instruction_goes_without(try_with: Callable[..., bool]) -> None:
    assert not try_with(lambda *_: os.kill(os.getpid(), signal.SIGILL))
    assert try_with(lambda *_: None)


def test_an_error_of_the_model_is_left_to_who_opens_it(try_with: Callable[..., bool]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such weights")

    assert try_with(broken)


def test_a_child_that_hangs_is_killed(
    try_with: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "_PATIENCE_S", 0.2)
    assert not try_with(lambda *_: time.sleep(60))


def test_an_interrupt_leaves_no_child(
    try_with: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    wait, fork = time.sleep, os.fork
    children: list[int] = []

    def counted() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", counted)
    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        try_with(lambda *_: wait(60))
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


@pytest.fixture
def unnoticed() -> Iterator[None]:
    """Let children go unnoticed, as in a process that ignores their end."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("unnoticed")
def test_a_child_whose_end_nobody_notes_is_taken_for_dead(
    try_with: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not try_with(lambda *_: None)
    monkeypatch.setattr(tiles, "_PATIENCE_S", 0.2)
    assert not try_with(lambda *_: time.sleep(60))


def test_it_is_tried_once_a_process(try_with: Callable[..., bool], tmp_path: Path) -> None:
    forks: list[int] = []
    real = os.fork
    assert try_with(lambda *_: None)

    def counted() -> int:
        forks.append(1)
        return real()

    os.fork = counted
    try:
        tiles.tiles_work.cache_clear()
        lib = library(1)
        assert tiles.tiles_work(lib, tmp_path / "m")
        assert tiles.tiles_work(lib, tmp_path / "m")
    finally:
        os.fork = real
    assert forks == [1]


def test_the_doctor_says_what_it_costs_and_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    llm = SimpleNamespace(name="m", is_remote=False, without_tiles=True, close=lambda: None)
    monkeypatch.setattr("hydra_edge.llm.models.open_llm", lambda *_: llm)
    found = doctor.look_at_llm(Config(), Paths(tmp_path, tmp_path, tmp_path))
    assert found.state == "advice"
    assert "AMX" in found.detail
    assert tiles.REBUILD in found.detail
    llm.without_tiles = False
    assert doctor.look_at_llm(Config(), Paths(tmp_path, tmp_path, tmp_path)).state == "ok"


def test_setup_compiles_without_tiles_where_there_are_some(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "scripts" / "install_local.py"
    spec = importlib.util.spec_from_file_location("install_local", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    info = tmp_path / "cpuinfo"
    info.write_text("flags\t\t: fpu avx512f amx_tile amx_int8 rdpid\n", encoding="utf-8")
    assert "-mno-amx-int8" in script.surroundings(info)["CXXFLAGS"]
    info.write_text("flags\t\t: fpu avx2\n", encoding="utf-8")
    assert script.surroundings(info) == dict(os.environ)
