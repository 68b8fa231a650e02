"""What it is worth to borrow a classifier for a closed set the base has never seen; no LLM.

    python -m bench.borrowed --data raters.jsonl.gz

Everyone's last records are the queries, answered from the records before them: all, and the
latest few. Two choices are made: by the feature ``own_fit`` alone, and by the shared head of the
task's kind without a single vote. Each is made twice, from the user's records alone and with
what the base lends (``hydra_edge.features.closed.borrow``). ``habit`` is what the user's own
answers agree with most, whatever the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.command import (
    Base,
    Figures,
    Queries,
    Seed,
    given,
    head,
    new_app,
    parse_sizes,
    start,
    write,
)
from bench.datasets import TaskData, draw_tasks, read_files
from bench.guard import BenchError, check_history, check_not_trained_on
from bench.report import Stages
from bench.stats import PerUser, bootstrap, means, paired
from export.data import UserHistory
from hydra_edge.adapter import merge, pool_utilities
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.encoder import Encoder, TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.features import ADAPTER_FEATURES, adapter_features
from hydra_edge.store import Store
from hydra_edge.types import Float2d, JsonDict

ROWS = ("habit", "own_fit", "own_fit_borrowed", "shared", "shared_borrowed")
_HABIT, _OWN = (ADAPTER_FEATURES.index(name) for name in ("habit", "own_fit"))

app = new_app()


def answer(
    bundle: Bundle, encoder: TextEncoder, data: TaskData, user: UserHistory, size: int, queries: int
) -> Float2d:
    """Answer a user's last records from the ``size`` records before them; 0: from all of those.

    Returns
    -------
    Float2d
        Utilities, shape ``(len(ROWS), queries)``.

    Raises
    ------
    BenchError
        If there is a leak, or the base lends nothing to the task.
    """
    edge = len(user.records) - queries
    known = user.records[edge - size if size else 0 : edge]
    check_history(known, user, edge)
    store = Store.in_memory()
    store.add(known)
    engine = Engine(store, bundle, encoder, data.custom)
    task = engine.task(user.task)
    features, head = engine.features["adapter"], engine.shared(task, "adapter")
    lent = features.classifier(task)
    if lent is None or not lent.doubt:
        store.close()
        raise BenchError(
            f"The base {'lends nothing to' if lent is None else 'was trained on'} {data.name}; "
            "expected a rating, or a label task whose labels it knows, under another name."
        )
    history = engine.history(task)
    lexical = engine.lexical(history)
    out = np.zeros((len(ROWS), queries), dtype=np.float32)
    for place, record in enumerate(user.records[edge:]):
        vector = engine.encode_query(record.input)
        pool = engine.pool(record.input, vector, merge((), task), (), history, lexical)
        worth = pool_utilities(pool, record.output, task)
        learned = features.learned(vector, pool.vectors)
        alone, told = (adapter_features(pool, history, of) for of in (None, lent))
        by_head = [head.scores(features.scale(np.hstack((raw, learned)))) for raw in (alone, told)]
        scores = (alone[:, _HABIT], alone[:, _OWN], told[:, _OWN], *by_head)
        out[:, place] = [worth[int(np.argmax(score))] for score in scores]
    store.close()
    return out


def summed_up(found: Sequence[Float2d], seed: int) -> JsonDict:
    """Return every row's mean utility and what borrowing adds, with its 90 % interval."""
    rows: dict[str, PerUser] = {
        row: [user[i].astype(np.float64) for user in found] for i, row in enumerate(ROWS)
    }
    gains = {
        row: paired(rows[f"{row}_borrowed"], rows[row], seed=seed).as_dict()
        for row in ("own_fit", "shared")
    }
    utility = {row: bootstrap(means(values), seed=seed).mean for row, values in rows.items()}
    return {"users": len(found), "utility": utility, "gain_of_borrowing": gains}


@app.command()
def main(
    context: typer.Context,
    data: Annotated[list[Path], typer.Option(help="Files of users, of label or rating tasks.")],
    users: Annotated[int, typer.Option(min=1, help="Users drawn of each task.")] = 400,
    queries: Queries = 5,
    history: Annotated[
        str, typer.Option(help="Sizes of the past beside all of it.")
    ] = "1,2,4,8,16",
    seed: Seed = 0,
    bundle: Base = None,
    json_path: Figures = None,
) -> None:
    """Measure borrowed classifiers on closed sets a base was not trained on."""
    base, sizes, console = load_bundle(bundle), parse_sizes(history), Console()
    check_not_trained_on(base, data)
    encoder = Encoder(base)
    tasks: JsonDict = {}
    for drawn in draw_tasks(
        read_files(data), users=users, queries=queries, seed=seed, specs={}, bundle=base
    ):
        if drawn.spec.kind == "text":
            raise BenchError(f"{drawn.name} is of kind text; expected a label or rating task.")
        tasks[drawn.name] = {}
        table = Table("records", *ROWS, "borrowing adds to shared", title=escape(drawn.name))
        for size in (*(size for size in sizes if size), 0):
            able = [u for u in drawn.users if len(u.records) - queries >= size]
            if not able:
                continue
            found = []
            with Stages(console) as report:
                report.name = drawn.name
                for done, user in enumerate(able, start=1):
                    found.append(answer(base, encoder, drawn, user, size, queries))
                    report(f"{size or 'all'} records", done, len(able))
            figures = tasks[drawn.name][str(size or "all")] = summed_up(found, seed)
            gain = figures["gain_of_borrowing"]["shared"]
            table.add_row(
                str(size or "all"), *(f"{figures['utility'][row]:.3f}" for row in ROWS),
                f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
            )  # fmt: skip
        console.print(table)
    made = head("borrowed", given(context), base.base_id, timed=False)
    found_all = made | {"seed": seed, "queries": queries, "tasks": tasks}
    write(found_all, json_path, "borrowed", console)


if __name__ == "__main__":
    start(app)
