"""What leaves for the LLM: the query, the records chosen for it, and nothing that may not.

Owns the egress policy: a remote LLM never sees a private record, nor any record at all
when asked in private, and whoever may see no private record is shown none by any LLM. What may not
be shown any more is withdrawn while the LLM writes.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from hydra_edge.engine import Engine
from hydra_edge.errors import CancelledError, ConfigError, StoreError
from hydra_edge.history import History
from hydra_edge.prompt import Prompt
from hydra_edge.store import Revision
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float1d, Progress, Ranking


@dataclass(frozen=True, eq=False)
class Question:
    """A query with the history it meets; ``vector`` has shape ``(dim,)``."""

    engine: Engine
    history: History
    query: str
    vector: Float1d

    @classmethod
    def of(
        cls, engine: Engine, task: TaskSpec, query: str, *, progress: Progress | None = None
    ) -> Question:
        """Read the history, encoding what is not cached yet, and encode the query.

        Raises
        ------
        ConfigError
            If the query is empty.
        """
        if not query.strip():
            raise ConfigError("The query is empty. Give a text to answer, or pipe one in.")
        history = engine.history(task, progress=progress)
        return cls(engine, history, query, engine.encode_query(query))

    def hiding_private(self) -> Question:
        """Return the question as one may see it who may see no private record.

        Nothing that is chosen or scored depends on one: an answer that fits those alone, or a
        score they move, would tell what they say.
        """
        return replace(self, history=self.engine.public_history(self.history))

    def rank(self, k: int, *, public_only: bool = False) -> Ranking:
        """Choose the ``k`` records to show, best first; no private one if ``public_only``."""
        task = self.history.task
        head = self.engine.active(task, "reranker")
        records = self.engine.rank(
            head, self.query, self.vector, self.history, k=k, public_only=public_only
        )
        return Ranking(self.query, task.name, records, head.info)


@dataclass(frozen=True, eq=False)
class Outgoing:
    """What would be sent for a question, and why; nothing is sent by making it."""

    question: Question
    prompt: Prompt
    ranking: Ranking
    withheld: tuple[str, ...] = ()  # what to say of it
    hide_private: bool = False  # whoever asks may see no private record

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of the prompt."""
        return self.notes_on(self.prompt)

    def notes_on(self, sent: Prompt) -> tuple[str, ...]:
        """Say what is missing in the prompt that was sent: an LLM may have room for less."""
        ranked, shown = len(self.ranking.records), len(sent.shots)
        unshown = (
            ()
            if shown >= ranked
            else (
                f"the context was too small: the {ranked - shown} weakest of {ranked} records were "
                "left out",
            )
        )
        return _left_out(self.question.query, sent.query) + self.withheld + unshown


def outgoing(
    question: Question,
    k: int,
    system: str,
    *,
    remote: bool,
    no_history: bool,
    hide_private: bool = False,
) -> Outgoing:
    """Choose the records and build the prompt, under the egress policy.

    ``no_history``: no record at all for a remote LLM. ``hide_private``: whoever asks may see no
    private record, wherever the LLM is.
    """
    if hide_private:
        question = question.hiding_private()
    engine, task = question.engine, question.history.task
    ranking = question.rank(k, public_only=remote)
    if remote:
        visible = [r for r in question.history.records if not (no_history or r.private)]
        task = engine.shown_task(task, visible)
    if no_history and remote:
        ranking = replace(ranking, records=())
    shown = [r.record for r in ranking.records]
    prompt = engine.prompt(task, question.query, shown, system)
    withheld: tuple[str, ...] = ()
    if no_history and remote:
        withheld = ("private: no history was put into the prompt; your head still chooses",)
    elif remote and k:
        withheld = _kept_back(question.history)
    return Outgoing(question, prompt, ranking, withheld, hide_private)


def _kept_back(history: History) -> tuple[str, ...]:
    """Say how many records a remote LLM may not be shown, if they are half of them or more.

    Who keeps a few private is answered from the others. Nobody else is told: a history as one
    sees it who may see no private record has none.
    """
    hidden = sum(record.private for record in history.records)
    if not hidden or 2 * hidden < len(history.records):
        return ()
    return (
        f"private: no remote LLM is shown {hidden} of {len(history.records)} records of "
        f"{history.task.name}; `hydra-edge history private --off --source SOURCE` lets it "
        "(`hydra-edge history sources` lists them)",
    )


def _left_out(query: str, sent: str) -> tuple[str, ...]:
    """Say how much of a query is in its prompt, if that is not all."""
    words, whole = sent.split(), query.split()
    if words == whole:
        return ()
    if words == whole[: len(words)]:
        kept = f"{len(words):,} of {len(whole):,} words"
    else:  # the cut is within one: its script writes no blanks, or it is no word
        kept = f"{len(sent):,} of {len(' '.join(whole)):,} characters"
    return (f"only the first {kept} of the query are in the prompt",)


class Withdrawn:
    """True once a record in a prompt was forgotten, or made private where none may be shown.

    That is where the LLM is remote, or whoever asks may see no private record.
    """

    def __init__(self, out: Outgoing, *, remote: bool) -> None:
        self._out = out
        self._store = out.question.engine.store
        self._ids = out.prompt.record_ids
        self._hidden = frozenset(r.record.id for r in out.ranking.records if r.record.private)
        self._public_only = remote or out.hide_private
        self._seen: Revision | None = None
        self._fault = ""

    def __call__(self) -> bool:
        """Tell so of one that can be read; what cannot is told of when the answer is decided."""
        with suppress(StoreError):
            self._look()
        return bool(self._fault)

    def _look(self) -> None:
        """Look again only where records have changed since."""
        revision = self._store.revision()
        if not self._fault and revision != self._seen:
            self._fault = next(filter(None, map(self._fault_of, self._ids)), "")
            self._seen = revision

    def _fault_of(self, record_id: str) -> str:
        record = self._store.find(record_id)
        if record is None:
            return f"record {record_id!r}, which was forgotten meanwhile"
        if record.private and self._public_only and record_id not in self._hidden:
            return f"record {record_id!r}, which was made private meanwhile"
        return ""

    def check(self) -> None:
        """Keep nothing of an answer that was shown what may not be shown any more.

        Nor one whose closed set has an answer that whoever asks may not see any more: to tell
        takes the engine, which is for one thread at a time.

        Raises
        ------
        CancelledError
            If there is such a record, or answer.
        """
        self._look()
        if not self._fault and self._out.hide_private:
            task = self._out.question.history.task
            if self._out.question.engine.any_private_label(task.name, task.labels):
                self._fault = "an answer that is known from private records only by now"
        if self._fault:
            raise CancelledError(
                f"The answer was thrown away: got one that was shown {self._fault}; expected "
                "records still there, and to be seen. Ask again."
            )
