"""What a user's heads learn from: own records as queries, bought pools, and choices made.

Each record and each choice teaches once, as things were at its time, and while it is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hydra_edge.adapter import merge, pool_features, pool_utilities, whole_rows
from hydra_edge.closedset import answer_key
from hydra_edge.engine import Engine
from hydra_edge.heads import Groups, choose_span, target_distribution
from hydra_edge.history import History
from hydra_edge.llm.names import REMOTE
from hydra_edge.population import prior_for
from hydra_edge.reranker import ProxyData, proxy_data
from hydra_edge.store import Store, StoredChoice, StoredPool
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Candidate, Double1d, Float1d, Float2d, Int1d, Progress
from hydra_edge.utility import utility

# The latest pools, and the user's latest choices, a head is fitted on, at most: as many of each as
# there are pseudo-queries.
POOLS = 500
CHOICES = 500
# How the keys of pools begin since what an error cut short is not kept any more.
WHOLE = "whole:"


def reranker_evidence(
    engine: Engine, history: History, *, shown: int, progress: Progress | None = None
) -> ProxyData:
    """Return what the reranker's head learns from: pseudo-queries with proxy utilities.

    ``shown`` is how many records a prompt shows.
    """
    return proxy_data(
        engine.features["reranker"], history, engine.lexical(history), shown=shown,
        helped=helped_by_then(
            engine.store, history, engine.store.choices(history.task.name)
        ),
        progress=progress,
    )  # fmt: skip


def moments_of(store: Store, history: History, choices: Sequence[StoredChoice]) -> list[int]:
    """Return how many records there were when each was made: what came later is not known."""
    place = history.place
    asked = [choice.time for choice in choices if choice.record_id not in place]
    there = iter(store.counts_until(history.task.name, asked))
    return [
        place[c.record_id] if c.record_id in place else min(next(there), len(history))
        for c in choices
    ]


def helped_by_then(
    store: Store, history: History, choices: Sequence[StoredChoice]
) -> Callable[[int], dict[str, tuple[int, int]]]:
    """Return what was known of how records helped before the record at a position was made.

    Returns
    -------
    callable
        Given positions in ascending order: record id -> (times shown, times the answer was taken
        as it was), of the choices made before.
    """
    offered = [choice for choice in choices if choice.candidates]
    # A choice that was kept is itself the record at its moment, which does not know of it.
    moments = [
        moment + (choice.record_id in history.place)
        for choice, moment in zip(offered, moments_of(store, history, offered), strict=True)
    ]
    waiting = deque(sorted(zip(moments, offered, strict=True), key=lambda one: one[0]))
    known: dict[str, tuple[int, int]] = {}

    def by_then(position: int) -> dict[str, tuple[int, int]]:
        while waiting and waiting[0][0] <= position:
            _, choice = waiting.popleft()
            for record_id in dict.fromkeys(choice.record_ids):
                shown, taken = known.get(record_id, (0, 0))
                known[record_id] = (shown + 1, taken + (choice.picked is not None))
        return known

    return by_then


@dataclass(frozen=True, eq=False)
class PoolData:
    """Stored pools as material to fit on, oldest pseudo-query first.

    ``items`` are (scaled features (m, d), utilities (m,)); ``zero`` and ``rag`` hold the
    utility of the plain answers for the pseudo-queries that have them, else nan: ``(n,)``.
    ``moments`` are how many records there were before each: ``(n,)``.
    """

    items: list[tuple[Float2d, Float1d]]
    zero: Float1d
    rag: Float1d
    moments: Int1d

    def take(self, index: Int1d) -> PoolData:
        """Return those at these places."""
        items = [self.items[i] for i in index.tolist()]
        return PoolData(items, self.zero[index], self.rag[index], self.moments[index])


def saw_only_earlier(pool: StoredPool, history: History) -> bool:
    """Say whether a pool's prompt showed no record that is later than its query, as times are now.

    Times can be told after a pool was made: by an import of what had none.
    """
    query = history.place.get(pool.query_id, -1)
    return all(history.place.get(shown, -1) < query for shown in pool.record_ids)


def _is_whole(pool: StoredPool) -> bool:
    """Say whether a pool is not one of which an API gave the first answer only.

    Earlier releases kept those. Answers but the first are asked for together, and a limit refuses
    many where it lets one pass. Two answers may be all that was wanted: nobody pays for them twice.
    """
    known = pool.key.startswith(WHOLE) or not pool.model.startswith(REMOTE)
    return known or len(pool.completions) > 1 or not all(c.greedy for c in pool.completions)


def whole_pools(store: Store, task: str, model: str | None) -> list[StoredPool]:
    """Return the pools of a task and an LLM (None: any), oldest first, but for those cut short."""
    return [p for p in store.pools(task, model=model, purpose="pool") if _is_whole(p)]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Queries an LLM may be asked about that have no pool yet.

    ``positions`` are those whose pools a fit would look at, the latest first; ``beyond`` says
    whether there are earlier ones besides.
    """

    positions: list[int]
    beyond: bool


def unanswered(engine: Engine, history: History, model: str, *, public_only: bool) -> Unanswered:
    """Return what an LLM can still be asked about; no private record if ``public_only``."""
    pools = whole_pools(engine.store, history.task.name, model)
    have = {pool.query_id for pool in pools if saw_only_earlier(pool, history)}
    kept = kept_of_choices(engine, history)

    def counts(i: int) -> bool:
        record = history.records[i]
        may_ask = i > 1 and not (public_only and record.private)
        return record.id not in kept and (record.id in have or may_ask)

    latest = [i for i in reversed(history.queries.tolist()) if counts(i)]
    missing = [i for i in latest if history.records[i].id not in have]
    looked_at = set(latest[:POOLS])
    positions = [i for i in missing if i in looked_at]
    return Unanswered(positions, len(positions) < len(missing))


def kept_of_choices(engine: Engine, history: History) -> set[str]:
    """Return the records kept of choices: the choice itself teaches what they could.

    An application's own answer was chosen from nothing, and teaches as any record does.
    """
    choices = engine.store.choices(history.task.name)
    return {c.record_id for c in choices if c.record_id and c.candidates}


def _plain(
    engine: Engine, history: History, model: str | None, purpose: str, queries: Collection[str]
) -> dict[str, float]:
    """Return the utility of single answers to some of the records, by query."""
    place, task = history.place, history.task
    return {
        pool.query_id: utility(
            pool.completions[0].text, history.records[place[pool.query_id]].output, task
        )
        for pool in engine.store.pools(task.name, model=model, purpose=purpose)
        if pool.query_id in queries and pool.completions and saw_only_earlier(pool, history)
    }


def _pool_data(
    engine: Engine, history: History, model: str | None, progress: Progress | None = None
) -> PoolData:
    """Turn the pools of a task's latest queries, ``POOLS`` at most, into features and utilities.

    Parameters
    ----------
    model
        Only this LLM's pools; None for those of any. A record counts once, by its latest pool
        that was not cut short and showed earlier records only, and not at all if it was kept of a
        choice, which teaches by itself, or repeats an earlier record: leaving one of two out would
        not leave its truth out. Nor does one whose answer is none of the task's.
    """
    task, place = history.task, history.place
    queries = {history.records[i].id for i in history.queries.tolist()}
    queries -= kept_of_choices(engine, history)
    latest = {
        pool.query_id: pool
        for pool in whole_pools(engine.store, task.name, model)
        if pool.query_id in queries and saw_only_earlier(pool, history)
    }
    lexical = engine.lexical(history)
    items: list[tuple[Float2d, Float1d]] = []
    ids: list[str] = []
    # Each fit looks at them anew: years of pools would take half its time and more.
    used = sorted(latest.values(), key=lambda pool: place[pool.query_id])[-POOLS:]
    for done, stored in enumerate(used, start=1):
        i = place[stored.query_id]
        record, past = history.records[i], history.before(i)
        shown = [history.records[place[r]] for r in stored.record_ids if r in place]
        candidates = merge(stored.completions, task)
        if candidates:
            pool = engine.pool(
                record.input, history.inputs[i], candidates, shown, past, lexical, keep=True
            )
            phi = pool_features(engine.features["adapter"], pool, past)
            whole = whole_rows(candidates)  # the others are no answer that would be given
            items.append((phi[whole], pool_utilities(pool, record.output, task)[whole]))
            ids.append(stored.query_id)
        if progress is not None and (done % 20 == 0 or done == len(used)):
            progress("pools", done, len(used))
    asked = frozenset(ids)
    zero, rag = (
        np.array([found.get(i, np.nan) for i in ids], dtype=np.float32)
        for found in (_plain(engine, history, model, kind, asked) for kind in ("zero", "rag"))
    )
    moments = np.array([place[i] for i in ids], dtype=np.int64)
    return PoolData(items, zero, rag, moments)


@dataclass(frozen=True, eq=False)
class ChoiceItem:
    """One answered choice as material to fit on: features, utilities, targets, each by row.

    ``moment`` is how many records there were when it was made.
    """

    features: Float2d
    utilities: Float1d
    target: Double1d
    moment: int


def _spread_target(utilities: Float1d, tau: float) -> Double1d:
    """Spread a query's target over its candidates by utility: shape ``(m,)``."""
    offsets = np.array([0, len(utilities)], dtype=np.int64)
    return target_distribution(utilities.astype(np.float64), offsets, tau)


def choice_item(
    engine: Engine, history: History, choice: StoredChoice, tau: float, moment: int
) -> ChoiceItem | None:
    """Turn a choice into a query the adapter's head can learn from.

    ``moment`` is how many records there were when it was made (see ``moments_of``).

    A candidate taken as it was is a one-hot target; an edited answer spreads the target by
    each candidate's agreement with what the user made of it.

    Returns
    -------
    ChoiceItem or None
        None if what was taken is no answer of the task any more: it was free text once.
    """
    answers = still_answers(choice, history.task)
    if answers is None:
        return None
    offered, picked = answers
    place = history.place
    past = history.before(moment)
    shown = [history.records[place[r]] for r in choice.record_ids if r in place]
    vector = engine.encode_query(choice.query)
    pool = engine.pool(
        choice.query, vector, offered, shown, past, engine.lexical(history), keep=True
    )
    utilities = pool_utilities(pool, choice.text, history.task)
    if picked is not None:
        target = np.zeros(len(utilities))
        target[picked] = 1.0
    else:
        target = _spread_target(utilities, tau)
    phi = pool_features(engine.features["adapter"], pool, past)
    return ChoiceItem(phi, utilities, target, moment)


def still_answers(
    choice: StoredChoice, task: TaskSpec
) -> tuple[tuple[Candidate, ...], int | None] | None:
    """Return the candidates that are answers of the task as it is, and which one was taken.

    None where none is, or not the one that was taken: such a choice teaches nothing.
    """
    offered, picked = choice.candidates, choice.picked
    if task.kind != "text":
        known = {answer_key(label, task.kind) for label in task.labels}
        kept = [i for i, c in enumerate(offered) if answer_key(c.text, task.kind) in known]
        if picked is not None and picked not in kept:
            return None
        offered = tuple(offered[i] for i in kept)
        picked = None if picked is None else kept.index(picked)
    return (offered, picked) if offered else None


@dataclass(frozen=True, eq=False)
class AdapterEvidence:
    """What an adapter's head learns from: stored pools and choices, oldest first.

    ``groups`` are both together, ``pools`` the pools alone, at the places ``of_pool`` among them:
    ``(n_pools,)``. ``outdated`` counts earlier ones that are left out, because the later ones
    speak against them; ``left_out`` are the pools among those.
    """

    pools: PoolData
    groups: Groups
    of_pool: Int1d
    outdated: int
    left_out: PoolData


def adapter_evidence(
    engine: Engine, history: History, model: str | None, *, progress: Progress | None = None
) -> AdapterEvidence:
    """Return what the adapter's head learns from.

    The latest pools and the latest choices, ``POOLS`` and ``CHOICES`` at most; of these, as many
    as agree with what the user takes now. Choices of answers the task no longer has (it was free
    text once, and is a rating now) teach nothing.

    Parameters
    ----------
    model
        Only this LLM's pools; None for those of any.
    progress
        Told of the pools and the choices, each of which is looked at as it was made.
    """
    data = _pool_data(engine, history, model, progress)
    prior = prior_for(engine.bundle, history.task, "adapter")
    # An application's own answer has no candidates to learn from.
    made = [c for c in engine.store.choices(history.task.name) if c.candidates][-CHOICES:]
    choices: list[ChoiceItem] = []
    moments = moments_of(engine.store, history, made)
    for done, (choice, moment) in enumerate(zip(made, moments, strict=True), start=1):
        if (item := choice_item(engine, history, choice, prior.tau, moment)) is not None:
            choices.append(item)
        if progress is not None and (done % 20 == 0 or done == len(made)):
            progress("choices", done, len(made))
    groups = Groups.stack(
        [*data.items, *((item.features, item.utilities) for item in choices)],
        dim=len(engine.features["adapter"].names),
        targets=[
            *(_spread_target(utilities, prior.tau) for _, utilities in data.items),
            *(item.target for item in choices),
        ],
    )
    # Of pools and choices alike, what came first; a record's pool before a choice made then.
    # Choices come as they were made: whose clock was wrong for a while has some whose records seem
    # later than those of all that followed.
    made_at = np.array([item.moment for item in choices], dtype=np.int64)
    order = np.argsort(
        np.concatenate([data.moments, np.maximum.accumulate(made_at)]), kind="stable"
    )
    groups = groups.take(order)
    outdated = groups.n_groups - choose_span(prior, groups)
    gone, kept = order[:outdated], order[outdated:]
    of_pool = np.flatnonzero(kept < len(data.items))
    latest = groups.take(np.arange(outdated, groups.n_groups))
    left_out = data.take(gone[gone < len(data.items)])
    return AdapterEvidence(data.take(kept[of_pool]), latest, of_pool, outdated, left_out)
