"""Which records prompts showed when LLMs were asked, so that a replay asks the same anywhere.

Another kind of processor rounds an encoder's last bits otherwise, and a reranker fitted with it
chooses other records for part of the queries, which nobody has asked. Users and records are named
by id only.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from export.lines import write_packed
from hydra_edge.errors import HydraError

SHOWN_FILE = "shown.jsonl.gz"

# Of a task, a user and the record that is the query: the records shown, best first.
Shown = Mapping[tuple[str, str, str], tuple[str, ...]]


def read_shown(folder: Path) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Read what was shown; nothing where no file is.

    Raises
    ------
    HydraError
        If the file is damaged.
    """
    path = folder / SHOWN_FILE
    if not path.exists():
        return {}
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="surrogatepass") as stream:
            rows = [json.loads(line) for line in stream]
        return {(r["task"], r["user"], r["query"]): tuple(r["shown"]) for r in rows}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as err:
        raise HydraError(
            f"{path} cannot be read: {err}. Expected what stage label leaves. Remove it: then "
            "only prompts that are the same here are replayed."
        ) from err


def add_shown(folder: Path, shown: Shown) -> None:
    """Note what was shown, beside what was noted before; equal notes give equal bytes."""
    known = read_shown(folder)
    if all(known.get(question) == ids for question, ids in shown.items()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    rows = (
        {"task": task, "user": user, "query": query, "shown": ids}
        for (task, user, query), ids in sorted({**known, **shown}.items())
    )
    write_packed(
        folder / SHOWN_FILE,
        (json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows),
    )
