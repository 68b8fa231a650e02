"""Several programs that change the settings or the keys at once: none loses what another wrote."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from hydra_edge import privatefiles
from hydra_edge.config import load_config, save_setting
from hydra_edge.errors import ConfigError
from hydra_edge.llm import keys
from hydra_edge.paths import Paths, find_paths
from hydra_edge.privatefiles import make_private_dir

NAMES = ("candidates", "records", "temperature", "timeout_s", "threads", "log")


@pytest.fixture
def paths() -> Paths:
    return find_paths()


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    before = os.umask(0o022)

    def change(mask: int) -> None:
        os.umask(mask)

    yield change
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def at_once(work: list[Callable[[], object]]) -> None:
    start = threading.Barrier(len(work))

    def run(task: Callable[[], object]) -> None:
        start.wait(timeout=60)
        task()

    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(run, task) for task in work]:
            done.result(timeout=60)


def test_settings_saved_at_once_are_all_kept(paths: Paths) -> None:
    at_once([lambda name=name: save_setting(paths, name, "1") for name in NAMES])
    kept = load_config(paths)
    assert [getattr(kept, name) for name in NAMES] == [1, 1, 1.0, 1.0, 1, True]
    assert set(paths.config_file.read_text().split()) >= set(NAMES)


def test_keys_set_and_removed_at_once_are_all_kept(paths: Paths) -> None:
    for i in range(3):
        keys.set_key(f"old{i}.example", "sk-old", paths)
    at_once(
        [
            *(lambda i=i: keys.set_key(f"new{i}.example", f"sk-{i}", paths) for i in range(6)),
            *(lambda i=i: keys.remove_key(f"old{i}.example", paths) for i in range(3)),
        ]
    )
    assert {name: keys.get_key(name, paths) for name in keys.list_keys(paths)} == {
        f"new{i}.example": f"sk-{i}" for i in range(6)
    }


SETTING = (lambda paths: save_setting(paths, "records", "2"), "config")
KEY = (lambda paths: keys.set_key("two.example", "sk-two", paths), "keys")
REMOVAL = (lambda paths: keys.remove_key("one.example", paths), "keys")


@pytest.mark.parametrize(("change", "name"), [SETTING, KEY, REMOVAL])
def test_file_that_another_program_is_changing_is_left_with_an_error(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Paths], object],
    name: str,
) -> None:
    monkeypatch.setattr(privatefiles, "_LOCK_WAIT_S", 0.01)
    keys.set_key("one.example", "sk-one", paths)
    save_setting(paths, "records", "1")
    files = {file: file.read_bytes() for file in (paths.keys_file, paths.config_file)}
    with (
        FileLock(paths.config / f"{name}.lock"),
        pytest.raises(ConfigError, match=rf"{name}\.\w+ is being changed by another .* Try again"),
        ThreadPoolExecutor(1) as other,
    ):
        other.submit(change, paths).result(timeout=60)
    assert {file: file.read_bytes() for file in files} == files
    change(paths)


@pytest.mark.parametrize(("change", "name"), [SETTING, KEY, REMOVAL])
def test_file_is_read_only_while_no_other_program_writes_it(
    paths: Paths,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Paths], object],
    name: str,
) -> None:
    """What the other wrote before it let go of the file is still there afterwards."""
    keys.set_key("one.example", "sk-one", paths)
    save_setting(paths, "records", "1")
    waits = threading.Event()
    acquire = FileLock.acquire

    def tell(lock: FileLock, *args: object, **options: object) -> object:
        waits.set()
        return acquire(lock, *args, **options)

    with ThreadPoolExecutor(1) as other:
        with FileLock(paths.config / f"{name}.lock"):
            monkeypatch.setattr(FileLock, "acquire", tell)
            done = other.submit(change, paths)
            assert waits.wait(timeout=60)
            paths.config_file.write_text("candidates = 3\nrecords = 1\n")
            paths.keys_file.write_text('{"one.example": "sk-one", "late.example": "sk-late"}')
        done.result(timeout=60)
    assert load_config(paths).candidates == 3
    assert keys.get_key("late.example", paths) == "sk-late"


def test_keyring_that_takes_its_time_keeps_nobody_from_the_file(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privatefiles, "_LOCK_WAIT_S", 0.01)

    def slow(_action: str, name: str, value: str = "") -> str | None:
        if name == "slow.example":
            with ThreadPoolExecutor(1) as other:
                other.submit(keys.set_key, "quick.example", "sk-quick", paths).result(timeout=60)
        return None

    monkeypatch.setattr(keys, "_keyring", slow)
    keys.set_key("slow.example", "sk-slow", paths)
    assert keys.get_key("quick.example", paths) == "sk-quick"
    assert keys.get_key("slow.example", paths) == "sk-slow"


def test_lock_files_are_their_owners_only_even_under_umask_zero(
    paths: Paths, umask: Callable[[int], None]
) -> None:
    umask(0)
    save_setting(paths, "records", "1")
    keys.set_key("one.example", "sk-one", paths)
    files = [file for file in paths.config.iterdir() if file.is_file()]
    assert {file.name for file in files} >= {"config.toml", "keys.json"}
    assert {mode(file) for file in files} == {0o600}


def test_change_that_fails_lets_the_next_program_have_the_file(paths: Paths) -> None:
    make_private_dir(paths.config)
    paths.config_file.write_text("user = ")
    with pytest.raises(ConfigError, match="Expected TOML"):
        save_setting(paths, "records", "1")
    paths.config_file.unlink()
    at_once([lambda: save_setting(paths, "records", "1")])
    assert load_config(paths).records == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize(("change", "name"), [SETTING, KEY])
def test_folder_that_cannot_be_written_is_named(
    paths: Paths, change: Callable[[Paths], object], name: str
) -> None:
    make_private_dir(paths.config)
    paths.config.chmod(0o500)
    try:
        with pytest.raises(ConfigError, match=rf"Cannot write .*{name}.*you may write to"):
            change(paths)
    finally:
        paths.config.chmod(0o700)


def test_folders_of_ours_that_are_made_are_closed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: Callable[[int], None]
) -> None:
    umask(0o022)
    monkeypatch.delenv("HYDRA_EDGE_HOME")
    for name in ("data", "config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / "new" / name))
    paths = find_paths()
    for made in (paths.users, paths.config, paths.cache / "models" / "below"):
        make_private_dir(made)
        assert mode(made) == 0o700
    ours = {folder for folder in tmp_path.rglob("hydra-edge") if folder.is_dir()}
    assert {folder.parent.name for folder in ours} == {"data", "config", "cache"}
    assert {mode(folder) for folder in ours} == {0o700}
    assert mode(paths.cache / "models") == 0o700
    others = [tmp_path / "new", *(tmp_path / "new").iterdir()]
    assert [mode(folder) for folder in others] == [0o755] * 4


def test_folders_that_were_there_keep_their_mode(home: Path, umask: Callable[[int], None]) -> None:
    umask(0o022)
    home.mkdir(mode=0o755)
    paths = find_paths()
    paths.cache.mkdir(mode=0o711)
    make_private_dir(paths.users)
    make_private_dir(paths.cache / "models")
    make_private_dir(paths.cache)
    assert [mode(folder) for folder in (home, paths.cache)] == [0o755, 0o711]
    assert [mode(folder) for folder in (paths.users, paths.cache / "models")] == [0o700] * 2


def test_home_that_is_made_is_closed_but_not_what_is_above(
    home: Path, monkeypatch: pytest.MonkeyPatch, umask: Callable[[int], None]
) -> None:
    umask(0o022)
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(home / "deep"))
    make_private_dir(find_paths().users)
    assert [mode(home), mode(home / "deep"), mode(home / "deep" / "users")] == [
        0o755, 0o700, 0o700,
    ]  # fmt: skip


def test_folder_elsewhere_is_closed_but_not_what_is_above(
    tmp_path: Path, umask: Callable[[int], None]
) -> None:
    umask(0o022)
    make_private_dir(tmp_path / "elsewhere" / "tokens")
    assert [mode(tmp_path / "elsewhere"), mode(tmp_path / "elsewhere" / "tokens")] == [
        0o755, 0o700,
    ]  # fmt: skip
