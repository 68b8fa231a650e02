"""How fast a head learns from picks: simulated people who always take answers of one kind.

    python -m bench.picks --data commit_subject.dev.jsonl.gz --llm gemma3 --replay

Pools are real answers to real queries of users the base has never seen; only the taking is
simulated: a person takes the shortest candidate, the longest, or the one with the fewest capitals.
Picks come one after the other, each is one Newton step, and the head is asked about pools it has
not learned from. A person who takes answers by chance is the control: nothing is to be learned.
At last a person who has taken answers of one kind for long takes those of another: what a fit
foretells of them that learns from everything, and one that chooses how far back to learn from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.command import start
from bench.datasets import TaskData
from bench.guard import BenchError
from bench.kept import app_of, cases
from bench.run import Bench
from hydra_edge.adapter import pool_features
from hydra_edge.heads import ConditionalLogit, Groups, Prior, choose_prior_scale, choose_span
from hydra_edge.population import prior_for
from hydra_edge.types import Float2d, Int1d, JsonDict

STEPS = (0, 5, 10, 20, 40)
# Picks by one habit, and after how many by the next a fit is asked.
BEFORE = 300
AFTER = (16, 32, 64, 128)
# The first and the next habit; the last of them has not changed.
CHANGES = (("shortest", "longest"), ("longest", "fewest capitals"), ("shortest", "shortest"))


@dataclass(frozen=True, eq=False)
class Offer:
    """The candidates of one query: their texts, and features of shape ``(m, d)``."""

    texts: tuple[str, ...]
    features: Float2d


def _capitals(text: str) -> float:
    return sum(letter.isupper() for letter in text) / max(len(text), 1)


# What a person minds of a text: the candidate with the least of it is taken.
HABITS: dict[str, Callable[[str], float]] = {
    "shortest": lambda text: len(text.split()),
    "longest": lambda text: -len(text.split()),
    "fewest capitals": _capitals,
}


def taken(offer: Offer, minds: Callable[[str], float]) -> int:
    """Return the place of the candidate a person takes; the first of equal ones."""
    return int(np.argmin([minds(text) for text in offer.texts]))


def as_good(offer: Offer, minds: Callable[[str], float]) -> frozenset[int]:
    """Return the places of the candidates a person holds as good as the one they take."""
    least = min(minds(text) for text in offer.texts)
    return frozenset(i for i, text in enumerate(offer.texts) if minds(text) == least)


def learn(
    prior: Prior, offers: Sequence[Offer], picks: Sequence[int], liked: Sequence[frozenset[int]]
) -> list[float]:
    """Take one step a pick, and measure on the offers after the last of ``STEPS``.

    Parameters
    ----------
    picks
        What is taken of each offer.
    liked
        Which candidates of each offer the person holds as good as the one taken.

    Returns
    -------
    list of float
        For each of ``STEPS``, the share of later offers of which the head chooses one that is
        liked.
    """
    head = ConditionalLogit.from_state(prior.mean.astype(np.float32), prior.precision, prior)
    edge, shares = STEPS[-1], []
    for step, (offer, pick) in enumerate(zip(offers, picks, strict=True)):
        if step in STEPS:
            chosen = [int(np.argmax(o.features @ head.weight_)) for o in offers[edge:]]
            shares.append(
                float(np.mean([c in g for c, g in zip(chosen, liked[edge:], strict=True)]))
            )
        if step == edge:
            break
        target = np.zeros(len(offer.texts))
        target[pick] = 1.0
        head = head.update(offer.features.astype(np.float64), target)
    return shares


def simulate(prior: Prior, offers: Sequence[Offer], seed: int) -> dict[str, list[float]]:
    """Let every person of ``HABITS``, and one without any, pick."""
    found = {}
    for name, minds in HABITS.items():
        picks = [taken(offer, minds) for offer in offers]
        found[name] = learn(prior, offers, picks, [as_good(offer, minds) for offer in offers])
    rng = np.random.default_rng(seed)
    picks = [int(rng.integers(len(offer.texts))) for offer in offers]
    # What the shared head would choose: somebody without a habit should not lose it.
    kept = [frozenset({int(np.argmax(o.features @ prior.mean))}) for o in offers]
    found["no habit: the shared choice is kept"] = learn(prior, offers, picks, kept)
    return found


def change(
    prior: Prior, offers: Sequence[Offer], first: str, then: str, seed: int
) -> dict[str, list[float]]:
    """Let a person pick by one habit for long, then by another, and fit on the picks.

    The picks are of offers drawn, again and again, from those before the last of ``STEPS``.

    Returns
    -------
    dict of list
        For a fit that learns from ``everything`` and one that chooses how ``far_back``: after
        each number of ``AFTER``, the share of later offers of which the head chooses one that is
        as good as what is taken now.
    """
    rng = np.random.default_rng(seed)
    edge = STEPS[-1]
    drawn: Int1d = rng.integers(edge, size=BEFORE + AFTER[-1])
    items, targets = [], []
    for n, place in enumerate(drawn.tolist()):
        offer = offers[place]
        target = np.zeros(len(offer.texts))
        target[taken(offer, HABITS[first if n < BEFORE else then])] = 1.0
        items.append((offer.features, target))
        targets.append(target)
    groups = Groups.stack(items, prior.dim, targets=targets)
    found: dict[str, list[float]] = {"everything": [], "far_back": []}
    for after in AFTER:
        so_far = groups.take(np.arange(BEFORE + after))
        span = choose_span(prior, so_far)
        latest = so_far.take(np.arange(so_far.n_groups - span, so_far.n_groups))
        for name, seen in (("everything", so_far), ("far_back", latest)):
            head = choose_prior_scale(prior, seen).head
            hits = [
                int(np.argmax(o.features @ head.weight_)) in as_good(o, HABITS[then])
                for o in offers[edge:]
            ]
            found[name].append(float(np.mean(hits)))
    return found


def offers_of(bench: Bench, data: TaskData) -> tuple[Prior, list[Offer]]:
    """Put the pools of a task's queries in an order drawn by the seed."""
    offers: list[Offer] = []
    for case in cases(bench, data):
        pool = case.sampled("gated").pool
        phi = pool_features(case.engine.features["adapter"], pool, case.history)
        offers.append(Offer(tuple(c.text for c in pool.candidates), phi))
    order = np.random.default_rng(bench.seed).permutation(len(offers))
    kept = [offers[i] for i in order if len(offers[i].texts) > 1]
    return prior_for(bench.bundle, case.task, "adapter"), kept


def measure(bench: Bench, tasks: Sequence[TaskData], console: Console) -> JsonDict:
    """Measure how many picks a head needs to see what a person takes."""
    figures = {}
    for data in tasks:
        prior, offers = offers_of(bench, data)
        if len(offers) <= STEPS[-1]:
            raise BenchError(
                f"{data.name} gives {len(offers)} pools; expected over {STEPS[-1]}. Draw "
                "more --users or --queries."
            )
        found = simulate(prior, offers, bench.seed)
        title = escape(f"{data.name}, {bench.llm.name}")
        table = Table("who picks", *(f"after {n}" for n in STEPS), title=title)
        for who, shares in found.items():
            table.add_row(who, *(f"{share:.2f}" for share in shares))
        console.print(table)
        changed = {
            f"{first}, then {then}": change(prior, offers, first, then, bench.seed)
            for first, then in CHANGES
        }
        table = Table(
            f"after {BEFORE} picks", "fitted on", *(f"{n} later" for n in AFTER), title=title
        )
        for who, fits in changed.items():
            for name, shares in fits.items():
                table.add_row(who, name, *(f"{share:.2f}" for share in shares))
        console.print(table)
        figures[data.name] = {
            "pools": len(offers), "judged_on": len(offers) - STEPS[-1],
            "strength": float(prior.precision[0, 0]), "share_liked": found, "changed": changed,
        }  # fmt: skip
    return {"picks": list(STEPS), "before": BEFORE, "after": list(AFTER), "tasks": figures}


app = app_of("picks", measure, "free-text")

if __name__ == "__main__":
    start(app)
