"""Does int8 choose as float32 does? The trained heads on the same queries, embedded both ways.

Owns the sample it is asked on, the comparison and its limits. Vectors are only a means: what
counts is which records an LLM is shown and which of its answers is given, and what they are
worth. All of it is computed by the code of the device. Knows nothing of graphs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from export.data import LEAST_EARLIER, UserHistory
from export.labels import PoolLabel
from export.mine import UsersByTask
from export.parity import TOP, Limit, TorchEncoder
from export.priors import engine_for
from hydra_edge.adapter import choose, merge
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import BundleError
from hydra_edge.history import History
from hydra_edge.population import zero_shot_share
from hydra_edge.types import Float2d, JsonDict, Progress, Role
from hydra_edge.utility import utility

TEXTS = 30_000  # embedded in float32, some five minutes on two cores; fewer decide by chance
QUERIES = 30  # of each user, whose records are ranked

LIMITS = (
    Limit("reranker_utility_change", -0.005, 0.005, "int8 shows other records, of other worth"),
    Limit("adapter_utility_change", -0.005, 0.005, "int8 gives other answers, of other worth"),
    Limit("kendall", 0.97, 1.0, "int8 orders otherwise"),
    Limit("reranker_kendall", 0.97, 1.0, "int8 orders records otherwise"),
    Limit("adapter_kendall", 0.97, 1.0, "int8 orders answers otherwise"),
)


_CHANGE = "_utility_change"  # figures of which only a loss is a fault


@dataclass(frozen=True, eq=False)
class Sampled:
    """One user to compare on, with the pools that LLMs answered, oldest query first."""

    user: UserHistory
    pools: tuple[PoolLabel, ...]

    @property
    def texts(self) -> set[str]:
        """Everything of theirs that is embedded."""
        of_records = {text for r in self.user.records for text in (r.input, r.output)}
        return of_records | {c.text.strip() for p in self.pools for c in (*p.completions, *p.plain)}


@dataclass(frozen=True, eq=False)
class Ordered:
    """What one encoder makes of a query: scores by candidate, and what the best is worth."""

    task: str
    scores: Mapping[str, float]
    utility: float


def draw_sample(
    users: UsersByTask, pools: Sequence[PoolLabel], *, seed: int, texts: int = TEXTS
) -> list[Sampled]:
    """Draw users whose queries were answered, of every task until its share of texts is used up.

    Raises
    ------
    BundleError
        If no query of these users was answered.
    """
    answered: dict[tuple[str, str], list[PoolLabel]] = {}
    for pool in pools:
        answered.setdefault((pool.task, pool.user), []).append(pool)
    able = {
        task: [u for u in of_task if (task, u.user) in answered]
        for task, of_task in sorted(users.items())
    }
    tasks = [task for task in able if able[task]]
    if not tasks:
        raise BundleError(
            "int8 cannot be compared with float32: found no answered pool; expected some. Ask an "
            "LLM first: python -m export build --only label."
        )
    drawn: list[Sampled] = []
    for task in tasks:
        left = texts // len(tasks)
        for user in random.Random(seed).sample(able[task], len(able[task])):
            of_user = sorted(answered[task, user.user], key=lambda p: (p.position, p.llm))
            one = Sampled(user, tuple(of_user))
            left -= len(one.texts)
            if left < 0 and drawn and drawn[-1].user.task == task:
                break
            drawn.append(one)
    return drawn


def compare(
    bundle: Bundle,
    reference: TextEncoder,
    int8: TextEncoder,
    sample: Sequence[Sampled],
    *,
    progress: Progress,
) -> JsonDict:
    """Order the records and the answers of the sample's queries with both encoders.

    Parameters
    ----------
    bundle
        The base as trained: its shared heads choose.
    reference, int8
        The encoder before and after quantization.

    Returns
    -------
    JsonDict
        The figures of ``LIMITS`` and their context, by task too; rounded, for the last digits
        of a float sum are the machine's. A change is relative to float32; its error is one
        standard error over users.
    """
    texts = sorted({text for one in sample for text in one.texts})
    for name, encoder in (("float32", reference), ("int8", int8)):
        encoder.encode(texts, progress=_named(f"agreement: {name}", progress))
    figures: JsonDict = {"texts": len(texts), "users": len(sample)}
    by_task: JsonDict = {}
    judges: dict[Role, _Judge] = {"reranker": _rank, "adapter": _choose}
    taus: list[float] = []
    for role, judge in judges.items():
        pairs = []
        for done, one in enumerate(sample, start=1):
            pairs.append(
                (_judged(judge, one, bundle, reference), _judged(judge, one, bundle, int8))
            )
            progress(f"agreement: {role}", done, len(sample))
        figures |= {f"{role}_{name}": value for name, value in _figures(pairs).items()}
        taus += _taus(pairs)
        for task in sorted({one.user.task for one in sample}):
            of_task = [p for p, s in zip(pairs, sample, strict=True) if s.user.task == task]
            by_task.setdefault(task, {})[role] = _figures(of_task)
    overall = float(f"{np.mean(taus):.4g}") if taus else 1.0
    return {**figures, "kendall": overall, "by_task": by_task}


def check_agreement(figures: JsonDict, within: Sequence[Limit] = LIMITS) -> None:
    """Fail if int8 orders otherwise than float32, or what it chooses is worth less.

    A gain is no fault. A loss beyond the limit is one even where its standard error is larger: too
    few users prove nothing, and the message says how few they were.

    Raises
    ------
    BundleError
        Naming each figure that is not within its limits, and what to do.
    """
    missed = []
    for limit in within:
        found, low, high = figures[limit.figure], limit.low, limit.high
        expected = f"{low} to {high}"
        if limit.figure.endswith(_CHANGE):
            high = math.inf
            error = figures.get(f"{limit.figure}_error", 0.0)
            expected = f"{low} or more, its standard error is {error}"
        if not low <= found <= high:
            missed.append(f"{limit.figure} = {found} (expected {expected}: {limit.why})")
    if missed:
        raise BundleError(
            f"Parity is missed: {'; '.join(missed)}; int8 was compared with float32 on "
            f"{figures['users']} users. Nothing was written. Give more users or records, for a "
            "small sample misses by chance; if it stays, int8 does not suit this data. Then run "
            "the build again, or only this stage: python -m export build --only agree."
        )


_Judge = Callable[[Engine, History, Sampled], list[Ordered]]
_Pair = tuple[list[Ordered], list[Ordered]]


def _judged(judge: _Judge, one: Sampled, bundle: Bundle, encoder: TextEncoder) -> list[Ordered]:
    engine = engine_for(one.user, bundle, encoder)
    with closing(engine.store):
        return judge(engine, engine.history(engine.task(one.user.task)), one)


def _rank(engine: Engine, history: History, one: Sampled) -> list[Ordered]:
    """Rank earlier records for each of the user's last ones; worth as their outputs agree."""
    head, out = engine.shared(history.task, "reranker"), []
    for position in range(max(LEAST_EARLIER, len(history) - QUERIES), len(history)):
        query, past = history.records[position], history.before(position)
        ranked = engine.rank(head, query.input, history.inputs[position], past, k=len(past))
        shown = [utility(r.record.output, query.output, history.task) for r in ranked[:TOP]]
        scores = {r.record.id: r.score for r in ranked}
        out.append(Ordered(one.user.task, scores, float(np.mean(shown))))
    return out


def _choose(engine: Engine, history: History, one: Sampled) -> list[Ordered]:
    """Choose among what LLMs answered, with as many answers without records as trained for."""
    head, out = engine.shared(history.task, "adapter"), []
    lexical, share = engine.lexical(history), zero_shot_share(engine.bundle, history.task)
    place = {record.id: record for record in history.records}
    for label in one.pools:
        query, past = history.records[label.position], history.before(label.position)
        candidates = merge(label.mixed(share), history.task)
        if not candidates:
            continue
        shown = [place[i] for i in label.shown_ids]
        vector = history.inputs[label.position]
        pool = engine.pool(query.input, vector, candidates, shown, past, lexical)
        choice = choose(head, pool, past)
        scores = {c.text: c.score for c in choice.candidates}
        out.append(Ordered(one.user.task, scores, utility(choice.text, query.output, history.task)))
    return out


def _taus(pairs: Sequence[_Pair]) -> list[float]:
    flat = (both for pair in pairs for both in zip(*pair, strict=True))
    return [tau for tau in (kendall(a.scores, b.scores) for a, b in flat) if tau is not None]


def _figures(pairs: Sequence[_Pair]) -> JsonDict:
    """Put users' queries in figures; each pair is one user's, float32 and int8."""
    flat = [both for pair in pairs for both in zip(*pair, strict=True)]
    before, after = (np.array([both[i].utility for both in flat]) for i in (0, 1))
    change = float(after.sum() / before.sum() - 1.0) if before.any() else 0.0
    # A ratio's error from users, not queries: those of one user rise and fall together.
    rest = [
        sum(b.utility - (1.0 + change) * a.utility for a, b in zip(*pair, strict=True))
        for pair in pairs
    ]
    error = float(np.sqrt(np.sum(np.square(rest)))) / before.sum() if before.any() else 0.0
    taus = _taus(pairs)
    figures = {
        "utility_float32": before.mean() if flat else 0.0,
        "utility_int8": after.mean() if flat else 0.0,
        "utility_change": change,
        "utility_change_error": error,
        "utility_differs": float(np.mean(before != after)) if flat else 0.0,
        "kendall": float(np.mean(taus)) if taus else 1.0,
    }
    return {"queries": len(flat)} | {n: float(f"{v:.4g}") for n, v in figures.items()}


def kendall(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return Kendall's tau-b of the scores of what both have scored; None if that is no pair.

    Candidates tied in both orders agree; where one order ties all and the other does not, there
    is no agreement to speak of: 0.
    """
    from scipy.stats import kendalltau

    shared = [key for key in first if key in second]
    if len(shared) < 2:
        return None
    a, b = ([scores[key] for key in shared] for scores in (first, second))
    flat = [len(set(scores)) == 1 for scores in (a, b)]
    if any(flat):
        return float(all(flat))
    return float(kendalltau(a, b).statistic)


def _named(stage: str, progress: Progress) -> Progress:
    return lambda _, done, total: progress(stage, done, total)


class FloatEncoder:
    """The model before it is converted, as an encoder of a base.

    Parameters
    ----------
    model
        The reference of ``export.parity``.
    base
        Whose encoder it stands in for.
    """

    def __init__(self, model: TorchEncoder, base: Bundle) -> None:
        self._model = model
        self.dim = base.manifest.dim
        self.base_id = f"{base.base_id}-float32"

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Return unit vectors, shape ``(n_texts, dim)``, float32."""
        return self._model.encode(texts, progress=progress)
