"""Pseudo-queries of a user's own past, labelled by an LLM's answers to them.

Owns whom a pseudo-query may see, and what counts as a positive. Refuses, before the LLM is
asked anything, a pseudo-query that is to be answered later, and a record that is not earlier
than its pseudo-query. Needs no torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from export.data import LEAST_EARLIER, LeakError, UserHistory
from export.label import SAMPLING
from hydra_edge.candidates import Draw, complete_within_context
from hydra_edge.llm import LLM
from hydra_edge.prompt import build_prompt
from hydra_edge.retrieval import LexicalIndex, OkapiIndex
from hydra_edge.tasks import TaskSpec, find_task
from hydra_edge.types import Record, text_hash
from hydra_edge.utility import utility

LISTED = 10  # of BM25's best: the candidates the reranker chooses from


@dataclass(frozen=True, slots=True)
class Allowance:
    """What labelling one user may ask: answers to single records, and pools of samples."""

    record_calls: int = 40
    pools: int = 5

    @property
    def queries(self) -> int:
        """How many pseudo-queries that can be at most."""
        return max(self.pools, self.record_calls // LEAST_EARLIER)


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A record in the role of a query: its position, and those of BM25's best, best first."""

    position: int
    listed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """What the encoder reads, and whether it is a positive (1) or not (0)."""

    first: str
    second: str
    label: int
    query_id: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """One user's pairs for one role, and what they cost: ``calls`` are answers asked for."""

    pairs: tuple[Pair, ...]
    calls: int
    tokens: int


def record_text(record: Record) -> str:
    """Write a record as the encoder reads it: the answer first, for pairs are cut at the end."""
    return f"{record.output}\n{record.input}"


def task_before(user: UserHistory, edge: int, custom: dict[str, TaskSpec]) -> TaskSpec:
    """Return a user's task, its closed set completed by their answers before ``edge`` only."""
    outputs = [record.output for record in user.records[:edge]]
    return find_task(user.task, custom=custom, outputs=outputs)


def shortlist(lexical: LexicalIndex, query: str, before: int, limit: int) -> tuple[int, ...]:
    """Return BM25's best among the first ``before`` records, as positions, best first.

    Records without a word in common follow, latest first, as in rank-bm25's own order.
    """
    found = lexical.search(query, limit, before)[0].tolist()
    have = set(found)
    others = (i for i in range(before - 1, -1, -1) if i not in have)
    return (*found, *(i for i, _ in zip(others, range(limit - len(found)), strict=False)))


def draw(user: UserHistory, edge: int, n: int, *, seed: int) -> list[PseudoQuery]:
    """Draw up to ``n`` of the records before ``edge`` as pseudo-queries, in random order.

    Same seed, same order, whatever ``n``: who can pay for fewer takes the first.
    """
    lexical = OkapiIndex([record.input for record in user.records[:edge]])
    positions = list(range(LEAST_EARLIER, edge))
    name = text_hash(f"{seed}\x1f{user.task}\x1f{user.user}")
    random.Random(name).shuffle(positions)
    return [
        PseudoQuery(i, shortlist(lexical, user.records[i].input, i, LISTED)) for i in positions[:n]
    ]


def affordable(queries: Sequence[PseudoQuery], calls: int) -> list[PseudoQuery]:
    """Take the pseudo-queries whose records can all be tried within ``calls``, in order."""
    taken = []
    for query in queries:
        if 0 < len(query.listed) <= calls:
            calls -= len(query.listed)
            taken.append(query)
    return taken


def check_known(user: UserHistory, edge: int, queries: Sequence[PseudoQuery]) -> None:
    """Refuse what was not known before the user's first query, at position ``edge``.

    Raises
    ------
    LeakError
        At the first pseudo-query at ``edge`` or later, or that would see itself or later.
    """
    for query in queries:
        if not 0 <= query.position < edge:
            raise LeakError(
                f"Leak in labelling user {user.user} ({user.task}): got the record at "
                f"{query.position} as a pseudo-query; expected one before {edge}, the first "
                "query to be answered. Draw pseudo-queries from the past."
            )
        if late := [i for i in query.listed if not 0 <= i < query.position]:
            what = "itself" if late[0] == query.position else f"the later record at {late[0]}"
            raise LeakError(
                f"Leak in labelling user {user.user} ({user.task}): the pseudo-query at "
                f"{query.position} would see {what}; expected earlier records only. Search "
                "before its position."
            )


def label_records(
    llm: LLM,
    task: TaskSpec,
    user: UserHistory,
    edge: int,
    queries: Sequence[PseudoQuery],
) -> Labelled:
    """Label pairs for the reranker by how the LLM answers when shown that record alone.

    Parameters
    ----------
    task
        As it was known before ``edge``.
    user, edge
        The user's records, and the position of the first query to be answered.

    Raises
    ------
    LeakError
        If a pseudo-query or a record is not of the past.
    BackendError
        If the LLM does not answer; in a replay, if it was not asked before.
    """
    check_known(user, edge, queries)
    pairs: list[Pair] = []
    calls = tokens = 0
    greedy = Draw(1, 0.0, task.max_tokens)
    for query in queries:
        record = user.records[query.position]
        tried: list[tuple[Record, float]] = []
        for i in query.listed:
            prompt = build_prompt(task, record.input, [user.records[i]])
            asked, completions = complete_within_context(llm, prompt, greedy)
            calls += 1
            tokens += completions[0].tokens
            if asked.shots:
                merit = utility(completions[0].text, record.output, task)
                tried.append((user.records[i], merit))
        pairs += _reranker_pairs(record, tried, task)
    return Labelled(tuple(pairs), calls, tokens)


def _reranker_pairs(
    record: Record, tried: Sequence[tuple[Record, float]], task: TaskSpec
) -> list[Pair]:
    mean = sum(merit for _, merit in tried) / max(len(tried), 1)
    return [
        Pair(
            record.input, record_text(shown),
            int(merit > mean + 1e-9 if task.kind == "text" else merit == 1.0), record.id,
        )
        for shown, merit in tried
    ]  # fmt: skip


def label_pools(
    llm: LLM,
    task: TaskSpec,
    user: UserHistory,
    edge: int,
    queries: Sequence[PseudoQuery],
) -> Labelled:
    """Label pairs for the adapter: a sample is a positive if it is what the user wrote.

    A text's truth is one row more, and nearly always its only positive. Equal samples are as
    many rows; blank ones, which are never chosen, are none. Parameters and errors as for
    ``label_records``.
    """
    check_known(user, edge, queries)
    pairs: list[Pair] = []
    calls = tokens = 0
    draw = Draw(SAMPLING.n, SAMPLING.temperature, task.max_tokens)
    for query in queries:
        record = user.records[query.position]
        shown = [user.records[i] for i in query.listed[: SAMPLING.shown]]
        prompt = build_prompt(task, record.input, shown)
        _, completions = complete_within_context(llm, prompt, draw)
        calls += len(completions)
        tokens += sum(c.tokens for c in completions)
        texts = [c.text.strip() for c in completions if c.text.strip()]
        truth = record.output.strip()
        pairs += [Pair(record.input, t, int(_same(t, truth, task)), record.id) for t in texts]
        if task.kind == "text":
            pairs.append(Pair(record.input, truth, 1, record.id))
    return Labelled(tuple(pairs), calls, tokens)


def _same(text: str, truth: str, task: TaskSpec) -> bool:
    return text == truth if task.kind == "text" else utility(text, truth, task) == 1.0
