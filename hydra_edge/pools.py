"""What to ask an LLM about a user's own records, in which order, and what its answers are named.

A pool is found again by the record it was made for, whatever the reranker shows today: what was
paid for is never paid for twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from hydra_edge.active import ActiveHead
from hydra_edge.candidates import Sampling, fit_to_context, longest_answer
from hydra_edge.engine import Engine
from hydra_edge.errors import ContextLengthError
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


@dataclass(frozen=True, eq=False)
class Purchase:
    """Pools to be had from an LLM for a user's own records: about which, and how they are asked.

    A remote LLM is asked about no private record, and shown none.

    Attributes
    ----------
    engine, history
        Whose records they are, oldest first.
    llm
        Who is asked.
    head
        The reranker's weights, which choose the records a prompt shows.
    informative
        Shape ``(m,)``, positions in the history; the records that the reranker could learn from
        are asked about before others.
    sampling
        How many candidates make a pool, of how many records shown, at which temperature.
    """

    engine: Engine
    llm: LLM
    head: ActiveHead
    history: History
    informative: Int1d
    sampling: Sampling

    def left(self) -> Unanswered:
        """Return what can still be asked about: of a remote LLM no private record."""
        return unanswered(self.engine, self.history, self.llm.name, public_only=self.llm.is_remote)

    def plan(self) -> Iterator[tuple[Record, list[Request]]]:
        """Yield the pseudo-queries to ask about, in order of worth, with their prompts.

        No LLM is asked about a record whose pool no fit would look at, for being too old.
        """
        plain = self.engine.store.pools(self.history.task.name, model=self.llm.name, purpose="rag")
        compared = len({pool.query_id for pool in plain})
        for i in _order(self.left().positions, self.informative):
            yield self.history.records[i], self._requests(i, compared=compared < COMPARED)
            compared += 1

    def preview(self, calls: int) -> list[str]:
        """Return byte for byte what buying would send for ``calls`` answers; send nothing."""
        prompts: list[str] = []
        spent = 0
        for _, requests in self.plan():
            spent += sum(request.n for request in requests)
            if spent > calls:
                break
            with suppress(ContextLengthError):  # such a record is left out
                for request in requests:
                    prompts += self._rendered(request)
        return prompts

    def _rendered(self, request: Request) -> list[str]:
        """Return the prompts of a request as far as the LLM has room, byte for byte."""
        length = self.longest(request)

        def render(prompt: Prompt) -> str:
            return self.llm.render(prompt, max_tokens=length)

        prompt, shown = fit_to_context(request.prompt, render)
        if not self.engine.zero_shot_draws(prompt, request.n):
            return [shown]
        return [shown, fit_to_context(prompt.without_shots(), render)[1]]

    def longest(self, request: Request) -> int:
        """Return how many tokens each of a request's answers may take."""
        return longest_answer(self.engine, self.llm, request.prompt, self.history.records)

    def zero_shot(self, request: Request) -> int:
        """Return how many of a request's answers are drawn with no record shown."""
        return self.engine.zero_shot_draws(request.prompt, request.n)

    def key(self, request: Request) -> str:
        """Name a request's answers."""
        return pool_key(request, self.llm, self.sampling, self.zero_shot(request))

    def _requests(self, position: int, *, compared: bool) -> list[Request]:
        """Build what is asked about one pseudo-query, which sees only earlier records.

        A remote LLM is shown no private one of them, nor an answer known from such alone.
        """
        engine, history = self.engine, self.history
        public_only = self.llm.is_remote
        record, past = history.records[position], history.before(position)
        vector = history.inputs[position]

        def shown(active: ActiveHead) -> list[Record]:
            ranked = engine.rank(
                active, record.input, vector, past, k=self.sampling.shown, public_only=public_only
            )
            return [r.record for r in ranked]

        task = history.task
        if public_only:
            task = engine.shown_task(task, (r for r in history.records if not r.private))
        records = shown(self.head)
        requests = [Request("pool", engine.prompt(task, record.input, records), self.sampling.n)]
        if compared:
            baseline = replace(self.head, weight=engine.baseline("reranker"))
            plain = engine.prompt(task, record.input, shown(baseline))
            requests.append(Request("zero", engine.prompt(task, record.input, []), 1))
            requests.append(Request("rag", plain, 1))
        return requests
