"""Which other sources hold a record: learned from imports, and right whatever becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import store_items
from store_items import make_head

from hydra_edge.errors import RecordNotFoundError
from hydra_edge.store import Store
from hydra_edge.types import Record

store = store_items.store
Box = Callable[..., list[Record]]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """Return some of the mails of a box, which is there."""

    def of(name: str, *numbers: int) -> list[Record]:
        (tmp_path / name).touch()
        source = f"mbox:{tmp_path / name}"
        return [
            Record(f"mail {i}", f"subject {i}", "mail", f"m{i}", source=source) for i in numbers
        ]

    return of


def holders(store: Store) -> dict[str, list[str]]:
    """Return the names of the files that hold a record besides its own source, by id."""
    return {
        name: [Path(source).name for source in sources]
        for name, sources in store.holders(task="mail").items()
    }


def owners(store: Store) -> dict[str, str]:
    return {record.id: Path(record.source).name for record in store.records()}


def test_import_of_what_another_holds_is_remembered_once(store: Store, box: Box) -> None:
    store.add(box("a", 1, 2))
    assert holders(store) == {}
    for _ in range(2):
        assert store.add(box("b", 2, 3)).unchanged
        assert holders(store) == {"m2": ["b"]}
    assert [held.id for held in store.also_held_from(box("b", 2)[0].source)] == ["m2"]
    store.add(box("a", 1, 2))
    assert holders(store) == {"m2": ["b"]}
    assert store.check() == []


def test_second_import_of_what_is_shared_writes_nothing(tmp_path: Path, box: Box) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as store:
        store.add(box("a", 1, 2))
        store.add(box("b", 1, 2))
    with Store.open(path) as store:
        for name in "ab":
            store.add(box(name, 1, 2))
        wal = path.with_name("me.db-wal")
        assert not wal.exists() or wal.stat().st_size == 0


@pytest.mark.parametrize("source", ["app:mail", "choices", "add", "mbox:-", ""])
def test_what_apps_pipes_and_hands_bring_is_not_remembered(
    store: Store, box: Box, source: str
) -> None:
    other = [replace(record, source=source, id="x") for record in box("a", 2)]
    store.add(box("a", 1) + other)
    store.add([replace(record, source=source) for record in box("a", 1)])
    store.add([replace(record, id="x") for record in box("b", 2)])
    assert holders(store) == {}


def test_edit_by_its_own_source_ends_what_was_remembered(store: Store, box: Box) -> None:
    store.add(box("a", 1, 2))
    store.add(box("b", 1, 2))
    store.add([replace(record, output="edited") for record in box("a", 1)])
    assert holders(store) == {"m2": ["b"]}
    store.add([replace(record, task="other") for record in box("a", 2)])
    assert holders(store) == {}
    assert store.holders(task="other") == {}


def test_number_of_a_row_that_went_brings_nothing_to_the_next(store: Store, box: Box) -> None:
    store.add(box("a", 1))
    store.add(box("b", 1))
    store.forget(["m1"])
    store.add([replace(record, id="m2") for record in box("a", 2)])
    assert holders(store) == {}


def test_renamed_task_keeps_what_was_remembered(store: Store, box: Box) -> None:
    store.add(box("a", 1))
    store.add(box("b", 1))
    store.rename_task("mail", "letters", lambda _: False)
    assert list(store.holders(task="letters")) == ["m1"]


def test_box_that_moved_is_remembered_under_its_new_name(
    store: Store, box: Box, tmp_path: Path
) -> None:
    store.add(box("a", 1))
    store.add(box("b", 1))
    (tmp_path / "b").unlink()
    store.add(box("c", 1))
    assert holders(store) == {"m1": ["c"]}
    (tmp_path / "a").unlink()
    store.add(box("c", 1))
    assert owners(store) == {"m1": "c"}
    assert holders(store) == {}


def test_box_on_a_drive_that_is_away_is_remembered_by_who_has_its_mail_now(
    store: Store, box: Box, tmp_path: Path
) -> None:
    (tmp_path / "drive").mkdir()
    store.add(box("drive/a", 1))
    (tmp_path / "drive/a").unlink()
    (tmp_path / "drive").rmdir()
    store.add(box("b", 1))
    assert owners(store) == {"m1": "b"}
    assert holders(store) == {"m1": ["a"]}


def test_handed_over_record_is_the_latest_holder_s_that_is_there(
    store: Store, box: Box, tmp_path: Path
) -> None:
    for name in "abcd":
        store.add(box(name, 1))
    (tmp_path / "d").unlink()
    store.save_head(make_head("mail"))
    ours = box("a", 1)[0].source
    assert store.heirs(["m1"]) == {"m1": box("c", 1)[0].source}
    rewrites = store.revision().rewrites
    assert list(store.hand_over(["m1"], without=[box("c", 1)[0].source, ours])) == ["m1"]
    assert owners(store) == {"m1": "b"}
    assert sorted(holders(store)["m1"]) == ["c", "d"], "it is no longer where it was"
    assert [head.stale for head in store.heads()] == [False]
    assert store.revision().rewrites > rewrites, "who holds them reads them anew"
    assert store.hand_over(["m1"], without=store.holders(["m1"])["m1"]) == {}


@pytest.mark.parametrize("hidden", [True, False])
def test_handed_over_record_is_private_where_all_of_its_new_source_is(
    store: Store, box: Box, hidden: bool
) -> None:
    store.add(box("a", 1))
    store.add([replace(record, id="twin", source="jsonl:/twin") for record in box("a", 1)])
    store.add([replace(record, private=True) for record in box("b", 2)])
    store.add([replace(record, private=hidden) for record in box("b", 3)])
    store.add(box("b", 1))
    assert not store.get("m1").private
    store.hand_over(["m1"])
    assert (store.get("m1").private, store.get("twin").private) == (hidden, hidden)
    assert owners(store)["m1"] == "b"


def test_forget_of_a_source_leaves_nothing_of_its_name(tmp_path: Path, box: Box) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as store:
        store.add(box("qwzjk", 1, 2))
        store.add(box("zzyzx", 1, 2))
        source = box("zzyzx", 1)[0].source
        assert store.would_forget(source=source).records == 0
        assert store.forget(source=source).records == 0
        assert owners(store) == {"m1": "qwzjk", "m2": "qwzjk"}
        with pytest.raises(RecordNotFoundError):
            store.forget(source=source)
        files = b"".join(p.read_bytes() for p in tmp_path.glob("me.db*"))
        assert b"zzyzx" not in files

        store.add(box("zzyzx", 2))
        assert store.forget(source=box("qwzjk", 1)[0].source).records == 2
        files = b"".join(p.read_bytes() for p in tmp_path.glob("me.db*"))
        assert b"qwzjk" not in files
        assert b"zzyzx" not in files


def test_records_of_before_it_was_remembered_are_told_apart(tmp_path: Path, box: Box) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as store:
        store.add(box("a", 1, 2))
        store._db.connection.executescript(
            "DROP TABLE holders; DROP TRIGGER holders_removed; DROP TRIGGER holders_moved; "
            "PRAGMA user_version = 3"
        )
    with Store.open(path) as store:
        store.add(box("a", 3))
        assert store.unwatched(["m1", "m2", "m3"]) == 2
        store.add(box("b", 1))
        assert holders(store) == {"m1": ["b"]}
        assert store.check() == []
    with Store.in_memory() as fresh:
        fresh.add(box("a", 1))
        assert fresh.unwatched(["m1"]) == 0
