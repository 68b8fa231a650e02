"""Renaming a task that ends before its time: every record is of a task that is described."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hydra_edge import taskfile
from hydra_edge.errors import ConfigError, DiskFullError
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.types import Record

OWN_NAME = "desk", 'kind = "label"\n'
NEW_NAME = "office", 'name = "desk"\nkind = "label"\n'


@pytest.fixture
def me() -> Iterator[Personalizer]:
    with Personalizer.open(create=True) as opened:
        opened.add(Record("text", "a", "desk"))
        yield opened


def written(home: Path, called: str, text: str) -> Path:
    """Describe the task ``desk`` in a file of this name."""
    folder = home / "tasks"
    folder.mkdir(parents=True)
    (folder / f"{called}.toml").write_text(text)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("called", "text"), [OWN_NAME, NEW_NAME])
@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_rename_interrupted_when_all_is_stored_leaves_the_task_described(
    me: Personalizer, home: Path, monkeypatch: pytest.MonkeyPatch, called: str, text: str,
    ending: type[BaseException],
) -> None:  # fmt: skip
    folder = written(home, called, text)
    real = Store.together

    @contextmanager
    def together(store: Store) -> Iterator[object]:
        with real(store) as held:
            yield held
        raise ending  # as Python raises what arrived during COMMIT

    with monkeypatch.context() as patched:
        patched.setattr(Store, "together", together)
        with pytest.raises(ending):
            me.rename_task("desk", "office")

    assert me.store.tasks() == {"office": 1}
    assert me.task("office").kind == "label"
    assert names(folder) == ["office.toml"]
    assert me.rename_task("office", "desk").records == 1
    assert me.task("desk").kind == "label"


@pytest.mark.parametrize(("called", "text"), [OWN_NAME, NEW_NAME])
def test_rename_interrupted_before_it_is_stored_changes_nothing(
    me: Personalizer, home: Path, monkeypatch: pytest.MonkeyPatch, called: str, text: str
) -> None:
    folder = written(home, called, text)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hydra_edge.store.renaming.mark_changed", stop)
    with pytest.raises(KeyboardInterrupt):
        me.rename_task("desk", "office")
    assert me.store.tasks() == {"desk": 1}
    assert names(folder) == [f"{called}.toml"]
    assert (folder / f"{called}.toml").read_text() == text


def test_rename_on_a_disk_that_is_full_by_then_restores_the_file_and_says_so(
    me: Personalizer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(home, *NEW_NAME)
    (folder / "office.toml").chmod(0o640)

    def no_room(*_: object, **__: object) -> None:
        monkeypatch.setattr(os, "fsync", unwritable)
        raise DiskFullError("no space is left on its disk")

    def unwritable(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hydra_edge.store.renaming.mark_changed", no_room)
    with pytest.raises(DiskFullError, match="no space is left"):
        me.rename_task("desk", "office")
    assert names(folder) == ["office.toml"]
    assert (folder / "office.toml").read_text() == NEW_NAME[1]
    assert (folder / "office.toml").stat().st_mode & 0o777 == 0o640
    assert me.store.tasks() == {"desk": 1}


def test_rename_without_room_for_the_way_back_is_not_begun(
    me: Personalizer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(home, *NEW_NAME)
    monkeypatch.setattr(
        taskfile, "write_private", lambda *_: pytest.fail("begun without a way back")
    )

    def unwritable(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", unwritable)
    with pytest.raises(ConfigError, match=r"office.*No space left.*room"):
        me.rename_task("desk", "office")
    assert names(folder) == ["office.toml"]
