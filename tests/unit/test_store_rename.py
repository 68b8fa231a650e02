"""Another name for a task, in everything that a user's file holds of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import store_items
from filled_store import put_choice
from store_items import CANDIDATES, KEPT, make_generation, make_head

from hydra_edge.headreport import NAMED
from hydra_edge.store import Store
from hydra_edge.types import Completion, HeadState, Record, RenameReceipt

store = store_items.store


def nothing(_name: str) -> bool:
    """Be a base that has something of its own for no name."""
    return False


def only_built_in(name: str) -> bool:
    """Be a base that knows one name."""
    return name == "built_in"


def fill(opened: Store, task: str, n: int = 2) -> None:
    """Put something of everything into a file."""
    opened.add(Record(f"{task} input {i}", f"output {i}", task) for i in range(n))
    opened.put_pool(
        f"key of {task}", task=task, model="m", query_id="q", record_ids=["a"],
        completions=[Completion("x")],
    )  # fmt: skip
    opened.log_generation(make_generation(f"g of {task}", task), "m")
    put_choice(opened, f"g of {task}", task, candidates=CANDIDATES, shown=["a"], picked=0)
    for role in ("reranker", "adapter"):
        opened.save_head(make_head(task, role))


def in_use(opened: Store, task: str) -> list[HeadState | None]:
    return [opened.head(task, "reranker"), opened.head(task, "adapter")]


def test_rename_moves_everything_and_keeps_ids_and_order(store: Store) -> None:
    fill(store, "old")
    fill(store, "other")
    records, heads = store.records(task="old"), in_use(store, "old")
    (pool,), (choice,) = store.pools("old"), store.choices("old")

    assert store.rename_task("old", "new", nothing) == RenameReceipt("old", "new", 2, 1, 1, 1, 2)

    assert store.records(task="new") == [replace(r, task="new") for r in records]
    assert store.pools("new") == [replace(pool, task="new")]
    assert store.choices("new") == [replace(choice, task="new", candidates=KEPT)]
    assert store.generations(task="new")[0][0].id == "g of old"
    for before, after in zip(heads, in_use(store, "new"), strict=True):
        assert before is not None
        assert after is not None
        assert (after.version, after.created, after.report) == (
            before.version, before.created, before.report,
        )  # fmt: skip
        assert (after.weight == before.weight).all()
    assert (store.count("old"), store.pools("old"), store.choices("old")) == (0, [], [])
    assert (store.heads("old"), store.generation_count("old")) == ([], 0)
    assert [store.count("other"), len(store.pools("other")), len(store.heads("other"))] == [2, 1, 2]
    assert store.check() == []


def test_rename_is_counted_so_that_other_programs_read_again(tmp_path: Path) -> None:
    path = tmp_path / "me.db"
    with Store.open(path) as one, Store.open(path, create=False) as two:
        fill(one, "old")
        assert two.helped_counts("old") == {"a": (1, 1)}
        assert two.bm25("input", "old", 5)
        assert two.tasks() == {"old": 2}
        before = two.revision()

        one.rename_task("old", "new", nothing)

        assert two.revision().rewrites == before.rewrites + 1
        assert two.helped_counts("new") == one.helped_counts("new") == {"a": (1, 1)}
        assert two.helped_counts("old") == {}
        assert two.tasks() == {"new": 2}
        assert len(two.bm25("input", "new", 5)) == 2


def test_rename_that_breaks_off_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "old")
    monkeypatch.setattr("hydra_edge.store.renaming.mark_changed", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.rename_task("old", "new", nothing)
    assert store.tasks() == {"old": 2}
    assert (len(store.choices("old")), len(store.heads("old")), store.heads("new")) == (1, 2, [])


def test_rename_into_a_task_with_heads_leaves_its_own_in_use(store: Store) -> None:
    fill(store, "new")
    mine = store.save_head(make_head("new", "adapter", seed=1))
    first = store.save_head(make_head("old", "adapter", seed=2))
    step = replace(first, report=first.report | {"choice": "g", "origin": first.version})
    store.save_head(step)

    receipt = store.rename_task("old", "new", nothing)

    assert receipt.heads == 2
    kept = [head for head in store.heads("new") if head.role == "adapter"]
    assert [head.version for head in kept] == [1, 2, 3, 4]
    assert (kept[2].weight == first.weight).all()
    assert kept[3].report["origin"] == 3, "the version it began from has another number"
    current = store.head("new", "adapter")
    assert current is not None
    assert current.version == mine.version == 2
    with store._db.reading() as connection:
        used = connection.execute("SELECT role, version FROM heads WHERE current").fetchall()
    assert sorted(used) == [("adapter", 2), ("reranker", 1)]


def test_rename_marks_heads_where_a_base_knows_a_name_and_takes_the_mark_back(
    store: Store,
) -> None:
    store.save_head(make_head("old"))
    assert store.rename_task("old", "built_in", only_built_in).outdated
    (head,) = store.heads("built_in")
    assert head.report[NAMED] == "old"
    assert not head.stale

    assert store.rename_task("built_in", "third", only_built_in).outdated is False
    (head,) = store.heads("third")
    assert NAMED not in head.report, "it was fitted under a name of which the base knows nothing"

    store.rename_task("third", "built_in", only_built_in)
    store.rename_task("built_in", "old", only_built_in)
    (head,) = store.heads("old")
    assert NAMED not in head.report


def test_rename_takes_a_head_with_a_damaged_report_along(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "me.db"
    with Store.open(path) as opened:
        opened.save_head(make_head("old"))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE heads SET report = '[broken'")
    raw.close()
    with Store.open(path) as opened:
        assert opened.rename_task("old", "new", nothing).heads == 1
