"""Heads: every version of a user's weights for a task and role, one of them in use."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import replace
from sqlite3 import Connection
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt

from hydra_edge.errors import ShapeError, StoreError
from hydra_edge.headreport import SEEN, is_imported, seen_by, step_of
from hydra_edge.store import choices, log
from hydra_edge.store.records import as_read
from hydra_edge.store.values import (
    DamagedValueError,
    bind,
    from_json,
    text_of,
    texts_from_json,
    to_json,
    where,
)
from hydra_edge.types import Float1d, HeadState, Role, Switch

# Of those that were fitted or brought, and as many of the single steps of choices.
KEPT_VERSIONS = 20
_COLUMNS = (
    "task, role, version, created, stale, base_id, features, weight, precision, switch, "
    "n_queries, prior_scale, report"
)


def _pack(array: npt.NDArray[np.floating], shape: tuple[int, ...], name: str) -> bytes:
    if array.shape != shape:
        raise ShapeError(
            f"Cannot store a head's {name}: got shape {array.shape}; expected {shape}, by its "
            "features."
        )
    packed = np.ascontiguousarray(array, dtype="<f4")
    if not np.isfinite(packed).all():
        raise ShapeError(
            f"Cannot store a head's {name}: got values that are not finite. Fit it again."
        )
    return packed.tobytes()


def _unpack(blob: Any, size: int, name: str) -> Float1d:
    if not isinstance(blob, bytes) or len(blob) != 4 * size:
        got = f"{len(blob)} bytes" if isinstance(blob, bytes) else type(blob).__name__
        raise DamagedValueError(f"a head's {name} is {got}, expected {4 * size} bytes")
    array = np.frombuffer(blob, "<f4").astype(np.float32)
    if not np.isfinite(array).all():
        raise DamagedValueError(f"a head's {name} holds values that are not finite")
    return array


def _state_of(row: tuple[Any, ...]) -> HeadState:
    (task, role, version, created, stale, base_id, features, weight, precision, switch,
     n_queries, prior_scale, report) = row  # fmt: skip
    if role not in get_args(Role) or switch not in get_args(Switch):
        raise DamagedValueError(f"a head has role {role!r} and switch {switch!r}")
    names = texts_from_json(features)
    d = len(names)
    try:
        numbers = int(version), float(created), int(n_queries), float(prior_scale)
    except (TypeError, ValueError) as err:
        raise DamagedValueError("a head's numbers are not numbers") from err
    return HeadState(
        task=text_of(task),
        role=cast("Role", role),
        base_id=text_of(base_id),
        features=names,
        weight=_unpack(weight, d, "weight"),
        precision=_unpack(precision, d * d, "precision").reshape(d, d),
        switch=cast("Switch", switch),
        n_queries=numbers[2],
        prior_scale=numbers[3],
        report=from_json(report, dict),
        version=numbers[0],
        created=numbers[1],
        stale=bool(stale),
    )


def _make_current(connection: Connection, task: str, role: Role, version: int) -> None:
    connection.execute(
        "UPDATE heads SET current = (version = ?) WHERE task = ? AND role = ?",
        (version, bind(task), role),
    )


def save(connection: Connection, state: HeadState, rewrites: int | None) -> HeadState:
    """Store a new version and make it current; see ``Store.save_head``."""
    if not as_read(connection, rewrites):
        raise StoreError(
            f"The {state.role} head for {state.task} was not stored: got records that "
            "were rewritten or forgotten meanwhile; expected those it learned from. Fit "
            f"again: hydra-edge fit-head --task {state.task}"
        )
    d = len(state.features)
    weight = _pack(state.weight, (d,), "weight")
    precision = _pack(state.precision, (d, d), "precision")
    if not math.isfinite(state.prior_scale):
        raise ShapeError(f"Cannot store a head: prior scale is {state.prior_scale}. Fit it again.")
    newest_seen = [choices.newest(connection, state.task), log.newest_number(connection)]
    state = replace(state, report=state.report | {SEEN: newest_seen})
    try:
        report = to_json(state.report)
    except (TypeError, ValueError) as err:
        raise StoreError(
            f"Cannot store a head: its report is not JSON ({err}). Expected plain numbers, texts, "
            "lists and dicts."
        ) from err
    key = (bind(state.task), state.role)
    newest = connection.execute(
        "SELECT COALESCE(MAX(version), 0) FROM heads WHERE task = ? AND role = ?", key
    ).fetchone()[0]
    saved = replace(state, version=newest + 1, created=time.time())
    connection.execute(
        f"INSERT INTO heads (current, {_COLUMNS}) "
        "VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key, saved.version, saved.created, int(saved.stale), bind(saved.base_id),
            to_json(list(saved.features)), weight, precision, saved.switch,
            saved.n_queries, saved.prior_scale, report,
        ),
    )  # fmt: skip
    _drop_old(connection, key)
    _make_current(connection, state.task, state.role, saved.version)
    return saved


def _is_step(report: Any) -> bool:
    """Tell whether a version is one choice's step on from another, by its stored report."""
    try:
        return step_of(from_json(report, dict)) is not None
    except DamagedValueError:
        return False


def _drop_old(connection: Connection, key: tuple[str | bytes, str]) -> None:
    """Delete the oldest versions of a task and role; steps never push out what they began from."""
    rows = connection.execute(
        "SELECT version, report FROM heads WHERE task = ? AND role = ? ORDER BY version DESC", key
    ).fetchall()
    if len(rows) <= KEPT_VERSIONS:
        return
    kinds: dict[bool, list[int]] = {False: [], True: []}
    for version, report in rows:
        kinds[_is_step(report)].append(version)
    connection.executemany(
        "DELETE FROM heads WHERE task = ? AND role = ? AND version = ?",
        [(*key, version) for kind in kinds.values() for version in kind[KEPT_VERSIONS:]],
    )


def current(connection: Connection, task: str, role: Role) -> HeadState | None:
    """Return the version in use; see ``Store.head``."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM heads WHERE task = ? AND role = ? AND current",
        (bind(task), role),
    ).fetchone()
    return None if row is None else _state_of(row)


def versions(connection: Connection, task: str | None) -> list[HeadState]:
    """Return all versions, oldest first within a task and role."""
    clause, texts = where(task=task)
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM heads {clause}ORDER BY task, role, version", texts
    )
    return [_state_of(row) for row in rows]


def roll_back(
    connection: Connection, task: str, role: Role, version: int | None
) -> HeadState | None:
    """Make another version current, or none; see ``Store.rollback_head``."""
    rows = connection.execute(
        "SELECT version, current, stale FROM heads WHERE task = ? AND role = ? ORDER BY version",
        (bind(task), role),
    ).fetchall()
    stale = {number: flag for number, _, flag in rows}
    kept = list(stale)
    in_use = next((number for number, flag, _ in rows if flag), 0)
    if version is None:
        wanted = max((number for number in kept if number < in_use), default=None)
        if wanted is None and in_use:  # before the first there was none
            _make_current(connection, task, role, 0)
            return None
    else:
        wanted = version if version in kept else None
    if wanted is None:
        what = "earlier version" if version is None else f"version {version}"
        raise StoreError(
            f"Cannot roll back the {role} of {task!r}: there is no {what} "
            f"(in use: {in_use or 'none'}; kept: {', '.join(map(str, kept)) or 'none'}). "
            "Choose one of these, or fit a new head."
        )
    if stale[wanted]:
        raise StoreError(
            f"Cannot roll back the {role} of {task!r}: version {wanted} is outdated, for records "
            "it was learned from were forgotten; expected one that is not. Fit a new head: "
            f"hydra-edge fit-head --task {task}"
        )
    _make_current(connection, task, role, wanted)
    state = current(connection, task, role)
    if state is None:
        raise DamagedValueError(f"version {wanted} of a head vanished")
    return state


def with_heads(connection: Connection, tasks: Iterable[str]) -> tuple[str, ...]:
    """Return those of the tasks that have any head, which ``mark_stale`` would mark."""
    select = "SELECT 1 FROM heads WHERE task = ? LIMIT 1"
    return tuple(t for t in tasks if connection.execute(select, (bind(t),)).fetchone())


def mark_stale(connection: Connection, tasks: Iterable[str]) -> tuple[str, ...]:
    """Mark the heads of these tasks; return the tasks that had any."""
    return tuple(
        task
        for task in dict.fromkeys(tasks)
        if connection.execute("UPDATE heads SET stale = 1 WHERE task = ?", (bind(task),)).rowcount
    )


def mark_stored_since(connection: Connection, task: str, answer: int, moment: float) -> None:
    """Mark the heads of a task that were stored since an answer was given.

    Parameters
    ----------
    answer, moment
        Its number in the log; and its time, which decides for heads of earlier releases.
    """
    rows = connection.execute(
        "SELECT role, version, created, report FROM heads WHERE task = ?", (bind(task),)
    ).fetchall()
    for role, version, created, report in rows:
        try:
            known = seen_by(from_json(report, dict))
            taught = created >= moment if known is None else known[1] >= answer
        except DamagedValueError:
            taught = True  # nobody can tell
        if taught:
            connection.execute(
                "UPDATE heads SET stale = 1 WHERE task = ? AND role = ? AND version = ?",
                (bind(task), role, version),
            )


def unlearn(connection: Connection, choice: choices.StoredChoice) -> None:
    """Mark the heads that may have learned from a choice.

    Where the adapter's in use is that choice's own step, it goes, and the version it began from
    serves again, if it is kept and no other reason is against it. What was brought from elsewhere
    stays, but for the step: no fit here could make it anew.
    """
    rows = connection.execute(
        "SELECT role, version, current, stale, created, report FROM heads WHERE task = ?",
        (bind(choice.task),),
    ).fetchall()
    taught: set[tuple[str, int]] = set()
    steps: set[tuple[str, int]] = set()
    before: int | None = None  # the version the step in use began from; 0: there was none
    for role, version, in_use, _, created, packed in rows:
        try:
            report = from_json(packed, dict)
        except DamagedValueError:  # nobody can tell
            taught.add((role, version))
            continue
        seen, step = seen_by(report), step_of(report)
        if step is not None and step[0] == choice.generation_id:
            steps.add((role, version))
            if in_use:
                before = step[1] or 0
        elif not is_imported(report) and (
            created >= choice.time if seen is None else seen[0] >= choice.seq
        ):
            taught.add((role, version))
    sound = {(role, version) for role, version, _, stale, *_ in rows if not stale} - taught - steps
    key = "task = ? AND role = ? AND version = ?"
    connection.executemany(
        f"UPDATE heads SET stale = 1 WHERE {key}",
        [(bind(choice.task), *head) for head in taught | steps],
    )
    if before is not None and (before == 0 or ("adapter", before) in sound):
        connection.executemany(
            f"DELETE FROM heads WHERE {key}", [(bind(choice.task), *head) for head in steps]
        )
        _make_current(connection, choice.task, "adapter", before)


def drop_stale(connection: Connection, task: str) -> int:
    """Delete the marked heads of a task; see ``Store.drop_stale_heads``."""
    teaching = "SELECT task FROM records UNION SELECT task FROM choices"
    marked = f"stale AND (task = ? OR task NOT IN ({teaching}))"
    used = connection.execute(
        f"SELECT task, role FROM heads WHERE current AND {marked}", (bind(task),)
    ).fetchall()
    dropped = connection.execute(f"DELETE FROM heads WHERE {marked}", (bind(task),)).rowcount
    for key in used:  # what is left is marked no more
        newest = connection.execute(
            "SELECT MAX(version) FROM heads WHERE task = ? AND role = ?", key
        ).fetchone()[0]
        if newest is not None:
            _make_current(connection, text_of(key[0]), key[1], newest)
    return dropped
