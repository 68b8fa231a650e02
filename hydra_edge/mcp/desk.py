"""What each tool does, without the protocol: asks the engine, hands out what may be seen.

Whatever a tool returns is read by the host application's own LLM, which may be remote. So the
egress policy of a remote LLM holds here whatever our own LLM is: unless the server was started
with ``allow_private``, no text of a private record leaves, nor anything written from one. That
is said for the host only: if our own LLM is remote, it is shown no private record either way.
What is forgotten or made private while a session runs is so from the next call on.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from hydra_edge import types
from hydra_edge.apptasks import app_task
from hydra_edge.errors import ConfigError, RecordNotFoundError
from hydra_edge.forms import SHOWN_CANDIDATES
from hydra_edge.mcp import shapes
from hydra_edge.personalizer import Personalizer
from hydra_edge.reasons import head_line, in_words, largest
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Generation, HeadInfo, JsonDict, Record, Role

T = TypeVar("T")
_REMEMBERED = 64  # generations that can still be explained, and as many prompts answered elsewhere
_REASONS = 4
_TEXT_CHARS = 4000  # of a record's side; a host's context is not ours to fill
_GLANCE_CHARS = 300  # of a record that only explains a choice
_HIDDEN = (
    "a record that was shown, or that alone an answer is known from, is private by now; it and "
    "what was written from it are left out"
)


@dataclass(frozen=True, slots=True)
class _Prompted:
    """A prompt that was handed out: what it asks, and which records it shows."""

    query: str
    task: str
    record_ids: tuple[str, ...]


class Desk:
    """One person's personalizer as tools.

    Not for several threads at once: the server gives it one piece of work after another.

    Parameters
    ----------
    person
        Whose history; it stays the caller's to close.
    task
        What a query is taken for unless it says; None: the setting ``task``, else the most used
        one, which has to have a record the host may see.
    allow_private
        Whether the host may see private records. A remote LLM of our own never does.
    """

    def __init__(
        self,
        person: Personalizer,
        *,
        task: str | None = None,
        allow_private: bool = False,
    ) -> None:
        self.person = person
        self.task = task
        self.allow_private = allow_private
        self._made: OrderedDict[str, Generation | None] = OrderedDict()  # None: thrown away
        self._prompted: OrderedDict[str, _Prompted] = OrderedDict()
        self._prompted_last = False  # whether a prompt was handed out since the last answer

    def search(self, query: str, *, task: str | None, limit: int) -> shapes.Found:
        """Find records by their words, in all tasks unless one is named.

        One that does not exist is refused: nothing found would read as nothing written.
        """
        name = self._task(task).name if task else None
        found = self.person.store.search(
            query, task=name, limit=limit, public_only=not self.allow_private
        )
        return shapes.Found(records=[shapes.Record(**_side(record)) for record in found])

    def personalize(
        self,
        query: str,
        *,
        task: str | None,
        records: int | None,
        should_stop: Callable[[], bool] | None = None,
    ) -> shapes.Personalized:
        """Choose records for a query and build the prompt that shows them.

        The host's own LLM reads it, which may be remote.
        """
        out = self.person.prompt_for(
            query, task=self._task(task).name, k=records, hide_private=not self.allow_private,
            should_stop=should_stop,
        )  # fmt: skip
        prompt_id = secrets.token_hex(6)
        made = _Prompted(query, out.prompt.task.name, out.prompt.record_ids)
        _remember(self._prompted, prompt_id, made)
        self._prompted_last = True
        return shapes.Personalized(
            generation_id=prompt_id,
            task=out.prompt.task.name,
            prompt="\n\n".join(part["content"] for part in out.prompt.messages()),
            records=_ranked(out.ranking.records),
            ranked_by=_head_line(out.ranking.head),
            notes=list(out.notes),
        )

    def generate(
        self,
        query: str,
        *,
        task: str | None,
        candidates: int | None,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
    ) -> shapes.Generated:
        """Answer a query with our own LLM, and remember the answer for a choice."""
        llm = self.person.llm  # first: an LLM that is refused costs no work
        made = self.person.generate(
            query,
            task=self._task(task).name,
            n=candidates,
            hide_private=not self.allow_private,
            cancelled=should_stop,
            on_candidate=on_candidate,
        )
        _remember(self._made, made.id, made)
        self._prompted_last = False
        return shapes.Generated(
            generation_id=made.id,
            task=made.task,
            text=made.text,
            candidates=[shapes.Candidate(**fields) for fields, _ in _candidates(made)],
            chosen_by=_head_line(made.head),
            abstained=made.abstained,
            notes=list(made.notes),
            llm=llm.name,
            latency_ms=made.usage.latency_ms,
        )

    def wanted(self, candidates: int | None) -> int:
        """Return how many candidates to sample."""
        return self.person.config.candidates if candidates is None else candidates

    def record_choice(
        self,
        generation_id: str | None,
        *,
        pick: int | None,
        text: str | None,
        keep: bool,
        should_stop: Callable[[], bool] | None = None,
    ) -> shapes.Chosen:
        """Teach the person's head which answer was taken, or what it was made into.

        Of an answer the host's own LLM wrote to a prompt of ``personalize`` there are no
        candidates to learn from: it becomes a record, which ranks from now on and is fitted on.
        """
        if generation_id is None and self._prompted_last:
            # To guess could teach that one answer was made into another, of another query.
            raise ConfigError(
                "It is not clear which answer was taken: got no generation_id, and personalize "
                "was called after the last answer of generate; expected one. Give the "
                "generation_id of the personalize or generate the answer belongs to."
            )
        if generation_id is not None and generation_id in self._prompted:
            return self._keep(generation_id, pick, text, keep)
        made = self._recall(generation_id)
        result = self.person.choose(
            generation_id=made.id, pick=pick, text=text, keep=keep,
            hide_private=not self.allow_private, should_stop=should_stop,
        )  # fmt: skip
        return shapes.Chosen(
            generation_id=result.generation_id,
            task=result.task,
            text="" if pick is not None and self._hides(made) else result.text,
            head_version=result.head_version,
            record_id=result.record_id,
        )

    def _keep(
        self, prompt_id: str, pick: int | None, text: str | None, keep: bool
    ) -> shapes.Chosen:
        """Keep what was answered elsewhere to a prompt of ours as a record."""
        if pick is not None or text is None or not text.strip() or not keep:
            raise ConfigError(
                f"{prompt_id} is a prompt of personalize, which has no candidates; expected text "
                "with the answer the user took, and keep true."
            )
        made = self._prompted[prompt_id]
        kept = self.person.keep_answer(
            made.query, text, prompt_id=prompt_id, record_ids=made.record_ids, task=made.task,
            hide_private=not self.allow_private,
        )  # fmt: skip
        return shapes.Chosen(
            generation_id=prompt_id, task=kept.task, text=kept.text, head_version=None,
            record_id=kept.record_id,
        )  # fmt: skip

    def explain(self, generation_id: str | None) -> shapes.Explained:
        """Say why a generation showed its records and gave its answer."""
        made = self._recall(generation_id)
        hidden = self._hides(made)
        return shapes.Explained(
            generation_id=made.id,
            task=made.task,
            query=made.query,
            text="" if hidden else made.text,
            records=_ranked(r for r in made.records if not (hidden and r.record.private)),
            ranked_by=_head_line(made.reranker),
            candidates=[
                shapes.ExplainedCandidate(**fields, reasons=_reasons(shares, "adapter"))
                for fields, shares in ([] if hidden else _candidates(made))
            ],
            chosen_by=_head_line(made.head),
            abstained=made.abstained,
            notes=[_HIDDEN] if hidden else [],
        )

    def _hides(self, made: Generation) -> bool:
        """Tell whether a generation was written from what the host may not see, or not any more.

        That is a record that was shown, or those that alone an answer of a closed set is known
        from.
        """
        if self.allow_private:
            return False
        if any(r.record.private for r in made.records):
            return True
        texts = [candidate.text for candidate in made.candidates]
        return self.person.engine.any_private_label(made.task, texts)

    def _task(self, wanted: str | None) -> TaskSpec:
        """Return the task of a query, one that the host may know of."""
        wanted = wanted or self.task
        if not self.allow_private:
            wanted = app_task(self.person, wanted, (self.task,))
        return self.person.task(wanted)

    def _recall(self, generation_id: str | None) -> Generation:
        """Return a generation made here, its records as they are in the history now.

        One made elsewhere may have shown private records.
        """
        if not self._made:
            raise ConfigError("Nothing was generated in this session yet. Call generate first.")
        if generation_id is None:
            generation_id = next(reversed(self._made))
        if generation_id not in self._made:
            raise ConfigError(
                f"No generation {generation_id[:40]!r} in this session; expected one of its last "
                f"{_REMEMBERED}. Call generate again."
            )
        made = self._still_known(self._made[generation_id])
        self._made[generation_id] = made  # its id stays: the last one must not come to mean another
        if made is None:
            raise ConfigError(
                f"Generation {generation_id} was thrown away: got one that was erased since, "
                "or shown a record that was; expected both still there. Call generate again."
            )
        return made

    def _still_known(self, made: Generation | None) -> Generation | None:
        """Return a generation with its records read again; None if it cannot be kept any more.

        Forgetting a record takes every answer out of the log that was shown it or repeats it.
        """
        store = self.person.store
        if made is None or (self.person.config.log and store.generation(made.id) is None):
            return None
        try:
            records = tuple(replace(r, record=store.get(r.record.id)) for r in made.records)
        except RecordNotFoundError:
            return None
        return replace(made, records=records)


def _remember(things: OrderedDict[str, T], key: str, thing: T) -> None:
    things[key] = thing
    while len(things) > _REMEMBERED:
        things.popitem(last=False)


def _ranked(ranked: Iterable[types.RankedRecord]) -> list[shapes.RankedRecord]:
    return [
        shapes.RankedRecord(
            **_side(item.record, _GLANCE_CHARS),
            score=item.score,
            reasons=_reasons(item.contributions, "reranker"),
        )
        for item in ranked
    ]


def _reasons(shares: Mapping[str, float], role: Role) -> list[shapes.Reason]:
    return [
        shapes.Reason(feature=name, meaning=in_words(name, role), share=share)
        for name, share in largest(shares, _REASONS)
    ]


def _side(record: Record, chars: int = _TEXT_CHARS) -> JsonDict:
    return {
        "id": record.id,
        "task": record.task,
        "input": _cut(record.input, chars),
        "output": _cut(record.output, chars),
        "date": _date(record.time),
    }


def _cut(text: str, chars: int) -> str:
    """Bound a text."""
    return text if len(text) <= chars else text[:chars] + " […]"


def _date(time: float | None) -> str | None:
    if time is None:
        return None
    try:
        return datetime.fromtimestamp(time, tz=UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def _candidates(made: Generation) -> list[tuple[JsonDict, dict[str, float]]]:
    """Return the first candidates' fields and the shares of their scores."""
    return [
        (
            {
                "number": place,
                "text": c.text,
                "score": c.score,
                "count": c.count,
                "finish": c.finish,
            },
            c.contributions,
        )
        for place, c in enumerate(made.candidates[:SHOWN_CANDIDATES], start=1)
    ]


def _head_line(head: HeadInfo) -> str:
    """Say which weights made a choice; not from how many answers they come, private ones too."""
    return head_line(replace(head, version=None), "the user's")
