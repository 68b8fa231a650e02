"""The ways to answer a query that the table compares: one function a row, one table of rows.

A row sees a case and the pools it declares, never the truth; the oracle only says that its
best answer counts. To add a row, write its function and add it to ``ROWS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.case import Case, Sampled, Subject
from export.label import SAMPLING
from hydra_edge.active import ActiveHead
from hydra_edge.adapter import choose
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Record, Switch
from hydra_edge.utility import agreement_matrix, utility


@dataclass(frozen=True, slots=True)
class Answer:
    """What a row answers to one query, and what that alone would have cost.

    Several ``texts`` are an answer drawn with ``weights`` (adding up to 1), whose expectation
    is measured; with ``best`` the best of them counts. ``calls`` are answers asked of the LLM,
    ``tokens`` theirs (a mean where one is drawn).
    """

    texts: tuple[str, ...]
    weights: tuple[float, ...]
    calls: int
    tokens: float
    best: bool = False

    @classmethod
    def of(cls, text: str, completions: Sequence[Completion]) -> Answer:
        """Answer with one text, for which these completions were asked."""
        return cls((text,), (1.0,), len(completions), float(sum(c.tokens for c in completions)))

    def resolved(self, truth: str, task: TaskSpec) -> Answer:
        """Return the answer that counts, once the truth is known: only ``best`` asks for it."""
        if not self.best:
            return self
        text = max(self.texts, key=lambda t: utility(t, truth, task))
        return Answer((text,), (1.0,), self.calls, self.tokens)

    def utility(self, truth: str, task: TaskSpec) -> float:
        """Return the (expected) utility, in [0, 1]."""
        counted = self.resolved(truth, task)
        return float(np.dot([utility(t, truth, task) for t in counted.texts], counted.weights))


@dataclass(frozen=True, slots=True)
class Row:
    """One way to answer.

    ``answer`` is given the case and the sampled ``pools`` of ``bench.case.POOLS`` named here;
    None where it cannot answer. ``fixed`` is what was asked once for the user, before any
    query. ``baseline``: ``paper`` for the paper's prompt-only baselines, ``ours`` for others.
    """

    name: str
    answer: Callable[..., Answer | None]
    pools: tuple[str, ...] = ()
    baseline: str = ""
    fixed: Callable[[Subject], Completion] | None = None

    def __call__(self, case: Case) -> Answer | None:
        """Answer a query."""
        return self.answer(case, *(case.sampled(name) for name in self.pools))


def _greedy(case: Case, records: Sequence[Record], *, with_profile: bool = False) -> Answer:
    _, completions = case.ask(records, with_profile=with_profile)
    return Answer.of(completions[0].text, completions)


def zero_shot(case: Case) -> Answer:
    """Ask the query alone."""
    return _greedy(case, [])


def random(case: Case) -> Answer:
    """Show earlier records drawn at random."""
    return _greedy(case, case.at_random)


def rag(k: int) -> Callable[[Case], Answer]:
    """Show BM25's ``k`` best, as the paper finds them."""
    return lambda case: _greedy(case, case.by_published_bm25[:k])


def dense_k4(case: Case) -> Answer:
    """Show the nearest by our encoder."""
    return _greedy(case, case.by_cosine)


def pag(case: Case) -> Answer:
    """Put a profile that the LLM wrote of the user before BM25's best (Richardson 2023)."""
    return _greedy(case, case.by_published_bm25, with_profile=True)


def _sampled_texts(case: Case, sampled: Sampled) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Return the distinct answers that were sampled, with their shares.

    Those outside a closed set, which are no candidates, are an empty one together.
    """
    counts = {c.text: c.count for c in sampled.pool.candidates if c.count}
    outside = len(sampled.completions) - sum(counts.values()) if case.task.kind != "text" else 0
    if outside or not counts:
        counts[""] = max(outside, 1)
    total = sum(counts.values())
    return tuple(counts), tuple(count / total for count in counts.values())


def random_of_b(case: Case, sampled: Sampled) -> Answer:
    """Take one of the samples at random: the expectation, at the price of one."""
    texts, weights = _sampled_texts(case, sampled)
    return Answer(texts, weights, 1, float(np.mean([c.tokens for c in sampled.completions])))


def consensus(case: Case, sampled: Sampled) -> Answer:
    """Take the sample that agrees most with the others: for labels, the majority."""
    drawn = [c for c in sampled.pool.candidates if c.count]
    if not drawn:
        return Answer.of("", sampled.completions)
    counts = np.array([c.count for c in drawn], dtype=np.float64)
    scores = agreement_matrix([c.text for c in drawn], case.task) @ counts
    return Answer.of(drawn[int(np.argmax(scores))].text, sampled.completions)


def reranker_only(_case: Case, sampled: Sampled) -> Answer:
    """Take the LLM's first answer to the records our reranker chose: one call."""
    return Answer.of(sampled.completions[0].text, sampled.completions[:1])


def _chosen(case: Case, head: ActiveHead, sampled: Sampled) -> Answer:
    if not any(c.count for c in sampled.pool.candidates):  # where a device refuses
        return Answer.of("", sampled.completions)
    return Answer.of(choose(head, sampled.pool, case.history).text, sampled.completions)


def adapter_with(switch: Switch | None) -> Callable[[Case, Sampled], Answer]:
    """Choose by the adapter: as the gate has it (None), or forced to ``switch``."""
    return lambda case, sampled: _chosen(case, case.head("adapter", switch), sampled)


def shuffled(case: Case, sampled: Sampled) -> Answer | None:
    """Answer as ``personal`` does, but with both heads of another user."""
    donor = case.subject.donor
    if donor is None:
        return None
    return _chosen(case, case.head("adapter", "personal", of=donor), sampled)


def oracle(case: Case, sampled: Sampled) -> Answer:
    """Take the best of the samples: what no system can know."""
    texts, weights = _sampled_texts(case, sampled)
    tokens = float(sum(c.tokens for c in sampled.completions))
    return Answer(texts, weights, len(sampled.completions), tokens, best=True)


ROWS = (
    Row("zero_shot", zero_shot, baseline="paper"),
    Row("random", random, baseline="paper"),
    Row("rag_k1", rag(1), baseline="paper"),
    Row("rag_k2", rag(2), baseline="paper"),
    Row("rag_k4", rag(SAMPLING.shown), baseline="paper"),
    Row("dense_k4", dense_k4, baseline="ours"),
    Row("pag", pag, baseline="paper", fixed=lambda subject: subject.profile),
    Row("random_of_b", random_of_b, ("gated",)),
    Row("consensus", consensus, ("gated",)),
    Row("reranker_only", reranker_only, ("gated",)),
    Row("adapter_only", adapter_with(None), ("bm25",)),
    Row("shared", adapter_with("shared"), ("shared",)),
    Row("personal", adapter_with("personal"), ("personal",)),
    Row("gated", adapter_with(None), ("gated",)),
    Row("shuffled", shuffled, ("shuffled",)),
    Row("oracle", oracle, ("gated",)),
)
