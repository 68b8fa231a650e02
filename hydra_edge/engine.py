"""One user's records, heads and base together: everything short of an LLM.

The facade, fitting on the device, and the benchmarks all stand on this one object, so that
features and prompts are computed by the same code everywhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self, get_args

import numpy as np

from hydra_edge.active import ActiveHead, is_ahead
from hydra_edge.bundle import Bundle
from hydra_edge.closedset import answer_key
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import ConfigError, StoreError
from hydra_edge.features import FeatureMap, Pool
from hydra_edge.history import History
from hydra_edge.population import baseline_weight, zero_shot_share
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.recall import Recall
from hydra_edge.reranker import rerank, shared_trust
from hydra_edge.retrieval import LexicalIndex
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN, CustomTasks, TaskSpec, canonical_name, closed_task
from hydra_edge.types import Candidate, Float1d, HeadState, Progress, RankedRecord, Record, Role
from hydra_edge.vectors import CachedEncoder


class Engine:
    """Ranking and pools for one user.

    Parameters
    ----------
    store
        The user's file, or one in memory.
    bundle, encoder
        The base and its encoder.
    custom_tasks
        The user's own task specs by name.
    check
        Called again and again while texts are encoded; what it raises ends the work.
    began
        When the base was chosen, in unix seconds; see ``check_current``.
    """

    def __init__(
        self,
        store: Store,
        bundle: Bundle,
        encoder: TextEncoder,
        custom_tasks: dict[str, TaskSpec] | None = None,
        check: Callable[[], None] | None = None,
        *,
        began: float = math.inf,
    ) -> None:
        self.store = store
        self.bundle = bundle
        self.began = began
        self.encoder = CachedEncoder(encoder, store, check)
        self.features: dict[Role, FeatureMap] = {
            "reranker": FeatureMap(bundle, "reranker"),
            "adapter": FeatureMap(bundle, "adapter"),
        }
        self._take_tasks(custom_tasks)

    def _take_tasks(self, custom_tasks: dict[str, TaskSpec] | None) -> None:
        # Sets that the base knows are closed, however few of their answers the user has given.
        closed = {
            name: spec
            for name, labels in self.bundle.manifest.closed_sets.items()
            if name not in BUILTIN and (spec := closed_task(name, labels)) is not None
        }
        given = custom_tasks if isinstance(custom_tasks, CustomTasks) else CustomTasks({}, {})
        specs = closed | (custom_tasks or {})
        self.custom_tasks = CustomTasks(specs, given.broken, given.unlimited)
        self._recall = Recall(self.store, self.encoder, self.custom_tasks)

    def with_tasks(self, custom_tasks: dict[str, TaskSpec]) -> Self:
        """Return this engine with other specs; whoever works with this one goes on with its own."""
        changed = copy.copy(self)
        changed._take_tasks(custom_tasks)
        return changed

    def is_behind(self, state: HeadState | None) -> bool:
        """Tell whether another program has stored a head with another base since this began."""
        return state is not None and is_ahead(state, self.bundle, self.began)

    def check_current(self) -> None:
        """Refuse to fit if another program has fitted with another base since this one began.

        Each would put the other's heads out of service, and drop the other's vectors.

        Raises
        ------
        ConfigError
            With what to do.
        """
        for task in self.store.tasks():
            for role in get_args(Role):
                with suppress(StoreError):  # a damaged head is nobody's to keep
                    state = self.store.head(task, role)
                    if state is not None and self.is_behind(state):
                        raise ConfigError(
                            f"Nothing is fitted here: got a head for {task} that another program "
                            f"has fitted with base {state.base_id[:12]} since this one began; "
                            f"expected base {self.bundle.base_id[:12]}. Start this program anew."
                        )

    def task(self, name: str) -> TaskSpec:
        """Return a task's spec, its closed set completed by what the user has answered."""
        return self._recall.task(canonical_name(name))

    def declared(self, name: str) -> TaskSpec | None:
        """Return a task as it is known without the user's answers; None if it is not."""
        return (BUILTIN | self.custom_tasks).get(name)

    def shown_task(self, task: TaskSpec, records: Iterable[Record]) -> TaskSpec:
        """Return a task as an LLM may see it that may see only these records.

        A closed set is part of every prompt, and the user's own answers complete it: those
        known from other records only (private ones, say) are left out.
        """
        declared = self.declared(task.name)
        allowed = {answer_key(label, task.kind) for label in declared.labels} if declared else set()
        allowed |= {answer_key(record.output, task.kind) for record in records}
        labels = tuple(label for label in task.labels if answer_key(label, task.kind) in allowed)
        return replace(task, labels=labels)

    def public_task(self, task: TaskSpec) -> TaskSpec:
        """Return a task as an LLM may see it that may see no private record."""
        records = self._recall.records(task.name)
        return self.shown_task(task, (record for record in records if not record.private))

    def any_private_label(self, task: str, texts: Iterable[str]) -> bool:
        """Tell whether one of the texts is of a closed set, known from private records only."""
        spec = self.task(task)
        known, public = (
            {answer_key(label, spec.kind) for label in one.labels}
            for one in (spec, self.public_task(spec))
        )
        return not (known - public).isdisjoint(answer_key(text, spec.kind) for text in texts)

    def history(self, task: TaskSpec, *, progress: Progress | None = None) -> History:
        """Return the user's records of a task, encoding what is not cached yet."""
        return self._recall.history(task, progress=progress)

    def public_history(self, history: History) -> History:
        """Return a history as one may see it who may see no private record."""
        return self._recall.public(history)

    def lexical(self, history: History) -> LexicalIndex:
        """Return BM25 over a history: the store's own index, or one in memory."""
        return self._recall.lexical(history)

    def active(self, task: TaskSpec, role: Role) -> ActiveHead:
        """Return the weights in force for a task and role."""
        state = self.store.head(task.name, role)
        return ActiveHead.of(self.bundle, task, self.features[role], state, began=self.began)

    def shared(self, task: TaskSpec, role: Role) -> ActiveHead:
        """Return the population's weights, whatever the user's own head is."""
        return ActiveHead.shared(self.bundle, task, self.features[role])

    def baseline(self, role: Role) -> Float1d:
        """Return the weights of a role's baseline, shape ``(d,)``."""
        return baseline_weight(self.features[role].names, role)

    def encode_query(self, query: str) -> Float1d:
        """Return a query's unit vector, shape ``(dim,)``; it is not written to the cache."""
        return np.asarray(self.encoder.encode([query], keep=False)[0], dtype=np.float32)

    def rank(
        self,
        head: ActiveHead,
        query: str,
        vector: Float1d,
        history: History,
        *,
        k: int,
        public_only: bool = False,
    ) -> tuple[RankedRecord, ...]:
        """Choose the ``k`` records to show, best first; no private one if ``public_only``."""
        hides = public_only and any(record.private for record in history.records)
        hidden = np.array([record.private for record in history.records]) if hides else None
        return rerank(
            head, query, vector, history, self.lexical(history), k=k,
            helped=self.store.helped_counts(history.task.name), hidden=hidden,
        )  # fmt: skip

    def prompt(
        self, task: TaskSpec, query: str, records: Sequence[Record], system: str = ""
    ) -> Prompt:
        """Build the prompt of a query from the records chosen for it, best first."""
        return build_prompt(task, query, records, system=system)

    def zero_shot_draws(self, prompt: Prompt, n: int) -> int:
        """Say how many of ``n`` candidates are drawn with no record shown.

        Records can mislead an LLM, and another prompt is the cheapest way to answers that
        differ; how much that is worth is what the base knows of a task. The first is never one.
        """
        if not prompt.shots:
            return 0
        return min(int(zero_shot_share(self.bundle, prompt.task) * n + 0.5), n - 1)

    def pool(
        self,
        query: str,
        vector: Float1d,
        candidates: Sequence[Candidate],
        shown: Sequence[Record],
        history: History,
        lexical: LexicalIndex,
        *,
        keep: bool = False,
    ) -> Pool:
        """Put a query's candidates together with what their features need.

        Parameters
        ----------
        history
            As it was at the time of the query.
        lexical
            BM25 over that history, or over one that continues it.
        keep
            Whether to cache the candidates' vectors: for pools that will be fitted on again.
            Those of shown records are the history's to cache: one may be forgotten by now.
        """
        texts = [c.text for c in candidates]
        trusted, trust = shared_trust(
            self.shared(history.task, "reranker"), query, vector, history, lexical
        )
        return Pool(
            query=query,
            query_vector=vector,
            candidates=tuple(candidates),
            vectors=self.encoder.encode(texts, keep=keep),
            shown=tuple(shown),
            shown_vectors=self.encoder.encode([r.output for r in shown], keep=False),
            trusted=trusted,
            trust=trust,
        )
