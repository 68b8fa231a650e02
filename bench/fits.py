"""How long a head takes to learn, against scikit-learn and the paper's head.

Warm: 1,000 queries of 10 candidates with all features of the adapter, judged as ``fit-head``
judges them: six prior strengths, every query left out in turn, the gate. The candidates are
drawn around a planted head, because only then is it known which ranking is right.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.clock import LEAST_PAIRS, by_turns, clock_name, now_s, sample
from bench.guard import BenchError
from bench.pasts import TASK, open_person, past
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.encoder import Encoder, plan_batches, real_token_share
from hydra_edge.evaluate import judge, top_utility
from hydra_edge.features import FeatureMap
from hydra_edge.heads import PRIOR_SCALES, ConditionalLogit, Groups, Prior
from hydra_edge.population import baseline_weight, gains_for, prior_for
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Float1d, HeadState, Int1d, JsonDict

QUERIES, CANDIDATES = 1_000, 10
HELD_OUT = 500
# The least that tells strengths apart; every query left out in turn would take 6,000 fits.
FOLDS = 5
PAPER_WIDTH = 384


@dataclass(frozen=True, eq=False)
class Material:
    """What all sides learn from, and queries none of them has seen."""

    prior: Prior
    baseline: Float1d
    seen: Groups
    unseen: Groups
    best: Int1d  # (n_pairs,) 1 for the best candidates of each query seen


def material(bundle: Bundle, seed: int = 0) -> Material:
    """Draw queries around a planted head."""
    task, names = BUILTIN[TASK], FeatureMap(bundle, "adapter").names
    prior, draw = prior_for(bundle, task, "adapter"), np.random.default_rng(seed)
    n = QUERIES + HELD_OUT
    features = np.clip(draw.standard_normal((n * CANDIDATES, len(names))), -5.0, 5.0)
    root = np.linalg.cholesky(np.linalg.inv(prior.precision))
    planted = prior.mean + root @ draw.standard_normal(len(names))
    scores = features @ planted + draw.gumbel(size=len(features))
    utilities = 1.0 / (1.0 + np.exp(-scores / scores.std()))
    both = Groups(features, utilities, np.arange(0, n * CANDIDATES + 1, CANDIDATES))
    seen, unseen = both.take(np.arange(QUERIES)), both.take(np.arange(QUERIES, n))
    table = seen.utilities.reshape(-1, CANDIDATES)
    best = (table == table.max(axis=1, keepdims=True)).astype(np.int64).reshape(-1)
    return Material(prior, baseline_weight(names, "adapter"), seen, unseen, best)


def _found(weight: Any, given: Material) -> float:
    """Return the mean utility of the candidate ranked first on unseen queries."""
    return float(top_utility(given.unseen.features @ np.ravel(weight), given.unseen, 1).mean())


def against_sklearn(given: Material, bundle: Bundle, pairs: int) -> JsonDict:
    """Compare with logistic regression on the same matrix: once plainly, once for the same job.

    The same job is to choose between as many strengths and to score queries not seen: sklearn
    does it by five folds of queries. A plain fit does neither.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold

    gains = gains_for(bundle, BUILTIN[TASK], "adapter")
    queries = np.repeat(np.arange(QUERIES), CANDIDATES)
    features, best = given.seen.features, given.best

    def ours(_: int) -> Any:
        return judge(given.seen, given.prior, given.baseline, top=1, gains=gains, abstaining=True)

    def plain(_: int) -> Any:
        return LogisticRegression(max_iter=1000).fit(features, best)

    def same_job(_: int) -> Any:
        search = GridSearchCV(
            LogisticRegression(max_iter=1000), {"C": [1.0 / s for s in PRIOR_SCALES]},
            cv=GroupKFold(FOLDS), scoring="neg_log_loss",
        )  # fmt: skip
        return search.fit(features, best, groups=queries)

    def one_fit(_: int) -> Any:
        return ConditionalLogit(given.prior).fit(given.seen)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked = {
            "ours": _found(ours(0).head.weight_, given),
            "sklearn": _found(same_job(0).best_estimator_.coef_, given),
            "sklearn_plain": _found(plain(0).coef_, given),
            "shared": _found(given.prior.mean, given),
        }
        whole = by_turns(ours, same_job, pairs)
        once = by_turns(one_fit, plain, pairs)
        plainly = by_turns(ours, plain, pairs)
    return {
        "warm_ms": round(whole.ours.p50, 3),
        "sklearn_over_fit": round(whole.ratio, 3),
        "warm": whole.ours.summary(),
        "sklearn": {
            "same_job": whole.summary(),
            "one_fit_over_one_fit": once.summary(),
            "one_fit_over_whole_fit": plainly.summary(),
            "held_out_utility": {name: round(value, 4) for name, value in ranked.items()},
        },
    }


_PAPER = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads(int(sys.argv[2]) or torch.get_num_threads())
from export.published.train import NEW_USER, fit_head
draw = np.random.default_rng(0)
n, width = int(sys.argv[1]), int(sys.argv[3])
vectors = draw.standard_normal((n, width)).astype(np.float32)
labels = (draw.random(n) < 0.1).astype(np.int64)
fit_head(vectors[:640], labels[:640], seed=0)
times = []
for _ in range(int(sys.argv[4])):
    started = getattr(time, sys.argv[5])()
    fit_head(vectors, labels, seed=0)
    times.append((getattr(time, sys.argv[5])() - started) * 1000.0)
print(json.dumps({"times_ms": times, "torch": torch.__version__, "steps": NEW_USER.steps(n)}))
"""


def against_paper(python: Path, warm_ms: float, *, threads: int, runs: int) -> JsonDict:
    """Fit the paper's two-layer head at its published recipe on as many cached pairs.

    torch lives in an environment of its own, so its runs follow ours in another process.

    Raises
    ------
    BenchError
        If that Python cannot run it.
    """
    clock = {"wall": "perf_counter", "cpu": "process_time"}[clock_name()]
    arguments = [str(QUERIES * CANDIDATES), str(threads), str(PAPER_WIDTH), str(runs), clock]
    done = subprocess.run(
        [python, "-c", _PAPER, *arguments], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(
            f"{python} cannot fit the paper's head: {done.stderr.strip().splitlines()[-1:]}. "
            "Expected an environment with the export extra (make test-export makes one)."
        )
    told = json.loads(done.stdout)
    p50 = float(np.median(told["times_ms"]))
    return {"paper_head_over_fit": round(p50 / warm_ms, 3), "paper_head": told | {"p50_ms": p50}}


def update(bundle: Bundle, runs: int) -> JsonDict:
    """Time the one Newton step that a choice costs, from features to the stored head."""
    given = material(bundle)
    names = FeatureMap(bundle, "adapter").names
    with tempfile.TemporaryDirectory() as home, open_person(Path(home)) as person:
        weight, precision = given.prior.mean, given.prior.precision

        def step(i: int) -> None:
            head = ConditionalLogit.from_state(
                weight.astype(np.float32), precision.astype(np.float32), given.prior
            )
            rows = given.seen.features[i * CANDIDATES : (i + 1) * CANDIDATES]
            learned = head.update(rows, np.eye(CANDIDATES)[0])
            person.store.save_head(
                HeadState(
                    TASK, "adapter", bundle.base_id, names, learned.weight_.astype(np.float32),
                    learned.precision_.astype(np.float32), "shared", i, 1.0, {},
                )
            )  # fmt: skip

        step(0)
        times = sample([partial(step, i) for i in range(runs)])
    return {"update_ms": round(times.p50, 3), "update": times.summary()}


class _TimedSession:
    """An ONNX session that adds up the time spent in ``run``."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.spent_s = 0.0

    def run(self, *args: Any) -> Any:
        started = now_s()
        try:
            return self._session.run(*args)
        finally:
            self.spent_s += now_s() - started

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def cold(bundle: Bundle, data: Sequence[Path], *, records: int, threads: int) -> JsonDict:
    """Fit a person whose texts were never encoded; say how much of it is the encoder's graph."""
    given = past(records, data)
    with tempfile.TemporaryDirectory() as home, open_person(Path(home), threads=threads) as person:
        person.add(given)
        encoder = person.engine.encoder.encoder
        if not isinstance(encoder, Encoder):
            raise BenchError("Cold fits are measured with the base's own encoder.")
        encoder.encode(["loads the session"])
        watched = _TimedSession(encoder._session)
        encoder._session = watched
        started = now_s()
        person.fit_head(use_llm=False)
        total_s = now_s() - started
        texts = list({text for record in given for text in (record.input, record.output)})
        texts.sort(key=len)
        lengths = [len(ids) for ids in encoder.tokenize(texts)]
    return {
        "cold_ort_share": round(watched.spent_s / total_s, 4),
        "cold": {
            "records": records,
            "seconds": round(total_s, 3),
            "session_run_seconds": round(watched.spent_s, 3),
            "texts_per_s": round(len(texts) / watched.spent_s, 1),
            "real_token_share": round(real_token_share(lengths, plan_batches(lengths)), 4),
        },
    }


def measure(
    data: Sequence[Path],
    *,
    quick: bool,
    threads: int,
    torch: Path | None,
    note: Callable[[str], None],
) -> JsonDict:
    """Measure warm and cold fits and the update, and both rivals.

    Parameters
    ----------
    torch
        A Python with the export extra; None: the paper's head is left out.
    note
        Told what was left out.
    """
    bundle, pairs = load_bundle(), LEAST_PAIRS if quick else 2 * LEAST_PAIRS + 1
    out = against_sklearn(material(bundle), bundle, pairs)
    if torch is None:
        note("the paper's head was not fitted: it needs torch, see --torch")
        out["paper_head_over_fit"] = None
    else:
        out |= against_paper(torch, out["warm_ms"], threads=threads, runs=pairs)
    out |= update(bundle, 5 * pairs)
    return out | cold(bundle, data, records=300 if quick else 1_000, threads=threads)
