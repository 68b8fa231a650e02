"""A head as a small JSON text: for moving it between a person's own devices.

And which head may be moved, and what is kept of one that came.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np

from hydra_edge.active import check_usable
from hydra_edge.bundle import Bundle
from hydra_edge.errors import ConfigError
from hydra_edge.headreport import as_imported, without_model
from hydra_edge.records import name_fault
from hydra_edge.store import Store
from hydra_edge.tasks import canonical_name
from hydra_edge.types import Float2d, HeadState, Role

FORMAT = "hydra-edge-head"
VERSION = 1
_MOST_QUERIES = 10**9
_LONGEST = 1_000_000  # characters; a head of 100 features takes 60,000


def _pack(array: Float2d) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype="<f4").tobytes()).decode("ascii")


def _unpack(text: str, shape: tuple[int, ...]) -> Float2d:
    raw = base64.b64decode(text, validate=True)
    array = np.frombuffer(raw, dtype="<f4").reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array


def head_to_json(state: HeadState) -> str:
    """Write a head as JSON text; which LLM's answers taught it is not said."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "task": state.task,
        "role": state.role,
        "base_id": state.base_id,
        "features": list(state.features),
        "weight": _pack(state.weight),
        "precision": _pack(state.precision),
        "switch": state.switch,
        "n_queries": state.n_queries,
        "prior_scale": state.prior_scale,
        "report": without_model(state.report),
    }
    return json.dumps(document, ensure_ascii=False, indent=1)


def head_from_json(text: str) -> HeadState:
    """Read a head, trusting nothing in it.

    Whether it can serve only a base can tell: see ``adopted``.

    Raises
    ------
    ConfigError
        If it is not a head this release can read; the message says in what way.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"{len(text)} characters")
        raw: dict[str, Any] = json.loads(text)
        if raw["format"] != FORMAT or raw["version"] != VERSION:
            raise ValueError(f"format {raw['format']!r} version {raw['version']!r}")
        d = len(raw["features"])
        if raw["role"] not in ("reranker", "adapter"):
            raise ValueError(f"role {raw['role']!r}")
        if raw["switch"] not in ("baseline", "shared", "personal"):
            raise ValueError(f"switch {raw['switch']!r}")
        if not isinstance(raw["report"], dict):
            raise ValueError("a report that is not an object")
        task, n_queries = canonical_name(str(raw["task"])), int(raw["n_queries"])
        if not task or (fault := name_fault(task)):
            raise ValueError(f"a task that {fault}" if task else "a task without a name")
        if not 0 <= n_queries <= _MOST_QUERIES:
            raise ValueError(f"{n_queries} queries")
        return HeadState(
            task=task,
            role=raw["role"],
            base_id=str(raw["base_id"]),
            features=tuple(str(name) for name in raw["features"]),
            weight=_unpack(raw["weight"], (d,)),
            precision=_unpack(raw["precision"], (d, d)),
            switch=raw["switch"],
            n_queries=n_queries,
            prior_scale=float(raw["prior_scale"]),
            report=raw["report"],
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as err:
        raise ConfigError(
            f"This is not a head file: got {type(err).__name__}: {err}; expected JSON of format "
            f"{FORMAT} version {VERSION}. Write one with: hydra-edge heads export"
        ) from err


def exportable(store: Store, task: str, role: Role) -> HeadState:
    """Return the head of a task as it may be exported.

    Raises
    ------
    ConfigError
        If there is none, or it has learned from something that was forgotten.
    """
    state = store.head(task, role)
    if state is None:
        raise ConfigError(f"No {role} head for {task} yet. Fit one: hydra-edge fit-head")
    if state.stale:
        raise ConfigError(
            f"The {role} head for {task} is not exported: got one that learned from something "
            f"that was forgotten. Fit it again: hydra-edge fit-head --task {task}"
        )
    return state


def adopted(state: HeadState, bundle: Bundle) -> HeadState:
    """Return a head that was exported elsewhere as it is stored here.

    Raises
    ------
    BaseMismatchError
        If it belongs to another base.
    ConfigError
        If no answer could be given with it.
    """
    check_usable(state, bundle)
    return replace(state, report=as_imported(state.report))
