"""Giving a task another name, in everything that is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

from hydra_edge.headreport import NAMED, renamed
from hydra_edge.store.records import mark_changed
from hydra_edge.store.values import DamagedValueError, bind, from_json, to_json
from hydra_edge.types import JsonDict, RenameReceipt


def rename(
    connection: Connection, old: str, new: str, knows: Callable[[str], bool]
) -> RenameReceipt:
    """Move all there is of a task to another name; see ``Store.rename_task``."""
    moved = {
        table: connection.execute(
            f"UPDATE {table} SET task = ? WHERE task = ?", (bind(new), bind(old))
        ).rowcount
        for table in ("records", "choices", "pools", "log")
    }
    heads, outdated = 0, False
    for role in ("reranker", "adapter"):
        found = _move_heads(connection, old, new, role, knows)
        heads += len(found)
        outdated |= any(found)
    mark_changed(connection, rewritten=True)
    return RenameReceipt(
        old, new, moved["records"], moved["choices"], moved["pools"], moved["log"], heads, outdated
    )


def _move_heads(
    connection: Connection, old: str, new: str, role: str, knows: Callable[[str], bool]
) -> list[bool]:
    """Move the versions of one role behind those there are; say of each whether it may not serve.

    The one in use stays so, unless there is one already.
    """
    newest, in_use = connection.execute(
        "SELECT COALESCE(MAX(version), 0), COALESCE(MAX(current), 0) FROM heads "
        "WHERE task = ? AND role = ?",
        (bind(new), role),
    ).fetchone()
    rows = connection.execute(
        "SELECT version, report FROM heads WHERE task = ? AND role = ?", (bind(old), role)
    ).fetchall()
    marks = []
    for version, stored in rows:
        report, packed = _report(stored), stored
        if report is not None:
            report = renamed(report, old, new, knows, newest)
            packed = to_json(report)
        marks.append(report is not None and NAMED in report)
        connection.execute(
            "UPDATE heads SET task = ?, version = ?, current = current AND NOT ?, report = ? "
            "WHERE task = ? AND role = ? AND version = ?",
            (bind(new), version + newest, in_use, packed, bind(old), role, version),
        )
    return marks


def _report(stored: object) -> JsonDict | None:
    """Read a head's report; None if it is damaged, which stays as it is."""
    try:
        report: JsonDict = from_json(stored, dict)
    except DamagedValueError:
        return None
    return report
