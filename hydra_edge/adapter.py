"""The adapter: which of the LLM's candidate answers fits this user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hydra_edge.active import ActiveHead
from hydra_edge.closedset import answer_key
from hydra_edge.features import FeatureMap, Pool, adapter_features, draw_in
from hydra_edge.history import History
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Candidate, Completion, Float1d, Float2d
from hydra_edge.utility import utility

# How an answer ended: by itself, at its longest, or broken off.
_ENDS = ("stop", "length", "cut")


def merge(completions: Sequence[Completion], task: TaskSpec) -> tuple[Candidate, ...]:
    """Merge equal answers into candidates with counts; a closed set is always complete.

    For ``label`` and ``rating`` tasks every member is a candidate, those never sampled with
    count 0, so that neighbours and habit can speak for an answer the LLM did not think of.
    """
    merged: dict[str | float, Candidate] = {}
    if task.kind != "text":
        merged = {answer_key(label, task.kind): Candidate(label, count=0) for label in task.labels}
    for completion in completions:
        text = completion.text.strip()
        key = text if task.kind == "text" else answer_key(text, task.kind)
        if not text or (task.kind != "text" and key not in merged):
            continue
        old = merged.get(key, Candidate(text, count=0))
        logprobs = [p for p in (old.logprob, completion.logprob) if p is not None]
        merged[key] = replace(
            old,
            count=old.count + 1,
            greedy=old.greedy or completion.greedy,
            zero_shot=old.zero_shot or completion.zero_shot,
            finish=_better_end(old, completion) if task.kind == "text" else old.finish,
            logprob=max(logprobs) if logprobs else None,
        )
    return tuple(merged.values())


def _better_end(old: Candidate, completion: Completion) -> str:
    """Return how the more whole one of equal answers ended; an unknown word is as good as any."""
    if completion.finish not in _ENDS:
        return _ENDS[0]
    ends = [completion.finish, *([old.finish] if old.count else [])]
    return min(ends, key=_ENDS.index)


def pool_features(features: FeatureMap, pool: Pool, history: History) -> Float2d:
    """Return the scaled features of a pool, shape ``(m, d)``, learned ones included."""
    known = features.classifier(history.task)
    raw = adapter_features(pool, history, known)
    if history.task.kind == "text":
        raw = draw_in(raw, len(history), features.half_at)
    learned = features.learned(pool.query_vector, pool.vectors)
    return features.scale(np.hstack((raw, learned)))


def pool_utilities(pool: Pool, truth: str, task: TaskSpec) -> Float1d:
    """Compare every candidate with what the user really wrote: shape ``(m,)``, [0, 1]."""
    return np.array([utility(c.text, truth, task) for c in pool.candidates], dtype=np.float32)


def whole_rows(candidates: Sequence[Candidate]) -> list[int]:
    """Return which candidates may be the answer: the whole ones where there are any, else all.

    What breaks off is of less use, and no head knows of it.
    """
    whole = [i for i, c in enumerate(candidates) if c.finish == _ENDS[0]]
    return whole or list(range(len(candidates)))


@dataclass(frozen=True, eq=False)
class Choice:
    """A scored pool, best first; ``chosen`` is the place of the answer to return.

    ``abstained``: a personal head preferred another, but not clearly, so that the answer stands
    that would have been given without it.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    abstained: bool

    @property
    def text(self) -> str:
        """The answer to return."""
        return self.candidates[self.chosen].text


def choose(head: ActiveHead, pool: Pool, history: History) -> Choice:
    """Score a pool of at least one candidate and choose the answer.

    Where some are whole, the others stand behind them, whatever they score.
    """
    phi = pool_features(head.features, pool, history)
    scores = head.scores(phi)
    parts = head.contributions(phi)
    whole = whole_rows(pool.candidates)
    order = sorted(np.argsort(-scores, kind="stable").tolist(), key=lambda i: i not in whole)
    ranked = tuple(
        replace(pool.candidates[i], score=float(scores[i]), contributions=parts[i]) for i in order
    )
    standing = head.standing(phi[whole])
    chosen = 0 if standing is None else order.index(whole[standing])
    return Choice(ranked, chosen, abstained=standing is not None)
