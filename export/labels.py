"""Answers of an LLM as labels: what stage label hands to stage train, and its files.

Owns the two kinds of label and how they are written. A label names records by id and holds the
answers as they came; what they are worth is judged by whoever has the records.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from export.lines import write_packed
from hydra_edge.errors import BundleError
from hydra_edge.types import Completion, JsonDict


@dataclass(frozen=True)
class PoolLabel:
    """An LLM's answers to one pseudo-query.

    ``position`` is the record's place in the user's history of the task, oldest first;
    ``shown_ids`` are earlier records in the order of the prompt, the most relevant last.
    ``plain`` are answers to the same query with no record shown, for free text.
    """

    llm: str
    user: str
    record_id: str
    position: int
    shown_ids: tuple[str, ...]
    completions: tuple[Completion, ...]
    task: str = ""
    plain: tuple[Completion, ...] = ()

    def mixed(self, share: float) -> tuple[Completion, ...]:
        """Return the pool with a ``share`` of it drawn with no record shown, as a device does."""
        draws = min(int(share * len(self.completions) + 0.5), len(self.plain))
        kept = self.completions[: len(self.completions) - draws]
        return kept + tuple(replace(c, greedy=False, zero_shot=True) for c in self.plain[:draws])


@dataclass(frozen=True)
class RecordLabel:
    """An LLM's greedy answer to one pseudo-query when shown one earlier record only.

    Made on request, for one's own use: no stage reads it.
    """

    llm: str
    user: str
    record_id: str
    position: int
    shown_id: str
    completion: Completion
    task: str = ""


def _without_bill(fields: list[tuple[str, Any]]) -> JsonDict:
    """Leave out what reading the prompts was billed: a replay, which reads none, is billed 0."""
    return {name: value for name, value in fields if name != "prompt_tokens"}


def write_labels(path: Path, labels: Sequence[PoolLabel] | Sequence[RecordLabel]) -> None:
    """Write labels as packed lines; equal labels give equal bytes."""
    rows = (asdict(label, dict_factory=_without_bill) for label in labels)
    write_packed(path, (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows))


def read_pools(path: Path) -> list[PoolLabel]:
    """Read the pools that ``write_labels`` wrote.

    Raises
    ------
    BundleError
        If the file does not hold such labels.
    """
    return [
        PoolLabel(
            **{
                **row,
                "shown_ids": tuple(row["shown_ids"]),
                "completions": tuple(Completion(**c) for c in row["completions"]),
                "plain": tuple(Completion(**c) for c in row.get("plain", ())),
            }
        )
        for row in _lines(path, {"shown_ids", "completions"})
    ]


def read_records(path: Path) -> list[RecordLabel]:
    """Read the single records' labels that ``write_labels`` wrote; raises as ``read_pools``."""
    return [
        RecordLabel(**{**row, "completion": Completion(**row["completion"])})
        for row in _lines(path, {"shown_id", "completion"})
    ]


def _lines(path: Path, needed: set[str]) -> Iterator[JsonDict]:
    try:
        content = path.read_bytes()
        if not content:
            raise ValueError("it is empty")
        text = gzip.decompress(content).decode("utf-8", "surrogatepass")
        for line in text.split("\n")[:-1]:  # a text may hold what else ends lines
            row = json.loads(line)
            if missing := needed - set(row):
                raise ValueError(f"no {', '.join(sorted(missing))}")
            yield row
    except (OSError, EOFError, zlib.error, ValueError) as err:
        raise BundleError(
            f"{path} holds no labels ({err}); expected what stage label leaves. Run it again: "
            "python -m export build --only label."
        ) from err
