"""What to ask an LLM about a user's own records, in which order, and what its answers are named.

A pool is found again by the record it was made for, whatever the reranker shows today: what was
paid for is never paid for twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hydra_edge.active import ActiveHead
from hydra_edge.candidates import Sampling
from hydra_edge.engine import Engine
from hydra_edge.evidence import WHOLE, Unanswered, unanswered
from hydra_edge.history import History
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt
from hydra_edge.types import Int1d, Record, text_hash

# The latest queries whose plain answers are bought too, for the report's first two rows.
COMPARED = 10


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to be answered for a report: ``purpose`` is pool, zero or rag."""

    purpose: str
    prompt: Prompt
    n: int


def pool_key(request: Request, llm: LLM, sampling: Sampling, zero_shot: int) -> str:
    """Name a request's answers: same prompt, model and sampling, same key."""
    parts = [request.purpose, llm.name, str(request.n), f"{sampling.temperature:g}"]
    if zero_shot:
        parts.append(str(zero_shot))
    return whole_key((*parts, request.prompt.key()))


def whole_key(parts: Sequence[str]) -> str:
    """Name answers of which an error cut none short."""
    return WHOLE + text_hash("\x1f".join(parts))


def _order(positions: Sequence[int], informative: Int1d) -> list[int]:
    """Order pseudo-queries, the latest first: those the reranker learned from before others."""
    known = set(informative.tolist())
    # In blocks, so that recency still rules over the whole.
    block = 32
    blocks = [positions[start : start + block] for start in range(0, len(positions), block)]
    return [i for part in blocks for i in sorted(part, key=lambda i: (i not in known, -i))]


def left_to_ask(engine: Engine, llm: LLM, history: History) -> Unanswered:
    """Return what can still be asked about: of a remote LLM no private record."""
    return unanswered(engine, history, llm.name, public_only=llm.is_remote)


def requests_for(
    engine: Engine,
    head: ActiveHead,
    history: History,
    position: int,
    sampling: Sampling,
    *,
    public_only: bool,
    compared: bool,
) -> list[Request]:
    """Build what is asked about one pseudo-query, which sees only earlier records.

    ``public_only``: no private one of them is shown, nor an answer known from such alone.
    """
    record, past = history.records[position], history.before(position)
    vector = history.inputs[position]

    def shown(active: ActiveHead) -> list[Record]:
        ranked = engine.rank(
            active, record.input, vector, past, k=sampling.shown, public_only=public_only
        )
        return [r.record for r in ranked]

    task = history.task
    if public_only:
        task = engine.shown_task(task, (r for r in history.records if not r.private))
    records = shown(head)
    requests = [Request("pool", engine.prompt(task, record.input, records), sampling.n)]
    if compared:
        baseline = replace(head, weight=engine.baseline("reranker"))
        plain = engine.prompt(task, record.input, shown(baseline))
        requests.append(Request("zero", engine.prompt(task, record.input, []), 1))
        requests.append(Request("rag", plain, 1))
    return requests


def planned(
    engine: Engine,
    llm: LLM,
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
) -> Iterator[tuple[Record, list[Request]]]:
    """Yield the pseudo-queries to ask about, in order of worth, with their prompts.

    A remote LLM is asked about no private record, and shown none. No LLM is asked about a record
    whose pool no fit would look at, for being too old.
    """
    plain = engine.store.pools(history.task.name, model=llm.name, purpose="rag")
    compared = len({pool.query_id for pool in plain})
    for i in _order(left_to_ask(engine, llm, history).positions, informative):
        requests = requests_for(
            engine, head, history, i, sampling,
            public_only=llm.is_remote, compared=compared < COMPARED,
        )  # fmt: skip
        compared += 1
        yield history.records[i], requests


def preview(
    engine: Engine,
    llm: LLM,
    head: ActiveHead,
    history: History,
    informative: Int1d,
    sampling: Sampling,
    calls: int,
) -> list[str]:
    """Return byte for byte what ``collect`` would send for ``calls`` answers; send nothing."""
    prompts: list[str] = []
    spent = 0
    for _, requests in planned(engine, llm, head, history, informative, sampling):
        spent += sum(request.n for request in requests)
        if spent > calls:
            break
        for request in requests:
            prompts.append(llm.render(request.prompt))
            if engine.zero_shot_draws(request.prompt, request.n):
                prompts.append(llm.render(request.prompt.without_shots()))
    return prompts
