"""The values that cross module borders: frozen, plain, without behaviour of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Half1d: TypeAlias = npt.NDArray[np.float16]
Half2d: TypeAlias = npt.NDArray[np.float16]
Float1d: TypeAlias = npt.NDArray[np.float32]
Float2d: TypeAlias = npt.NDArray[np.float32]
Double1d: TypeAlias = npt.NDArray[np.float64]
Double2d: TypeAlias = npt.NDArray[np.float64]
Int1d: TypeAlias = npt.NDArray[np.int64]
Bool1d: TypeAlias = npt.NDArray[np.bool_]
Bool2d: TypeAlias = npt.NDArray[np.bool_]

Kind: TypeAlias = Literal["text", "label", "rating"]
Role: TypeAlias = Literal["reranker", "adapter"]
Switch: TypeAlias = Literal["baseline", "shared", "personal"]

JsonDict: TypeAlias = dict[str, Any]
# Told of progress as (stage, done, total); may be called from a worker thread.
Progress: TypeAlias = Callable[[str, int, int], None]

DEFAULT_TASK = "general"


def text_hash(text: str) -> str:
    """Return the sha256 of a text in hex; the key under which its vector is cached."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Record:
    """One item of a user's history: what was asked, and what the user wrote or chose.

    ``time`` is in unix seconds or None; ``id`` may be empty until the record is stored
    (the store then derives one from the content, so that re-importing is idempotent).
    """

    input: str
    output: str
    task: str = DEFAULT_TASK
    id: str = ""
    time: float | None = None
    private: bool = False
    source: str = ""

    @property
    def content_hash(self) -> str:
        """sha256 over task, input and output: equal records are the same record."""
        return text_hash("\x1f".join((self.task, self.input, self.output)))


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of an LLM, as it came.

    ``logprob`` is the mean log-probability (nats) of a token where the backend gives a finite one.
    ``finish`` is ``stop``, ``length``, or ``cut`` (the reply broke off). ``zero_shot``: the LLM
    was shown no record, though others of the pool were. ``tokens`` and ``prompt_tokens`` are what
    writing it and reading the prompt were billed; of several answers to one request one carries
    the prompt's, of several copies of an answer one carries both, so that the sums over a pool
    are what was spent.
    """

    text: str
    greedy: bool = False
    tokens: int = 0
    logprob: float | None = None
    finish: str = "stop"
    zero_shot: bool = False
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One distinct answer of a pool; ``count`` samples agreed on it (0: never sampled).

    ``greedy`` and ``zero_shot``: one of them was the LLM's first choice, or drawn without records.
    ``finish`` is how it ended, the best of its samples: ``stop``, ``length`` or ``cut``.
    """

    text: str
    count: int = 1
    greedy: bool = False
    logprob: float | None = None
    score: float = 0.0
    contributions: dict[str, float] = field(default_factory=dict)
    zero_shot: bool = False
    finish: str = "stop"


@dataclass(frozen=True, slots=True)
class RankedRecord:
    """A record with its score, the exact sum of ``contributions`` (feature -> value)."""

    record: Record
    score: float
    contributions: dict[str, float]


@dataclass(frozen=True, slots=True)
class HeadInfo:
    """Which weights made a choice: ``switch`` is what the gate allows, version None = no head.

    ``otherwise`` is what serves where a personal head is not sure, and would without it.
    """

    task: str
    role: Role
    switch: Switch
    version: int | None
    base_id: str
    n_queries: int = 0
    reason: str = ""
    otherwise: Switch = "baseline"


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer cost; tokens are 0 where the backend does not say.

    ``prompt_tokens`` and ``completion_tokens`` are those of every request and every candidate,
    whether or not it was chosen.
    """

    llm_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    requested: int = 0
    received: int = 0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Records that would be shown for a query, best first."""

    query: str
    task: str
    records: tuple[RankedRecord, ...]
    head: HeadInfo


@dataclass(frozen=True, slots=True)
class Generation:
    """A finished answer and everything that explains it; ``records`` were in the prompt."""

    id: str
    query: str
    task: str
    text: str
    candidates: tuple[Candidate, ...]
    records: tuple[RankedRecord, ...]
    head: HeadInfo
    reranker: HeadInfo
    usage: Usage
    abstained: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AddResult:
    """What adding records did; ``renamed`` ids were taken by another record of other content."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    renamed: int = 0


@dataclass(frozen=True, slots=True)
class ForgetReceipt:
    """How much was erased, of each thing a record leaves behind."""

    records: int = 0
    vectors: int = 0
    pools: int = 0
    choices: int = 0
    log_entries: int = 0
    repeats: int = 0  # of the records: answers that were kept and repeat what the others say
    tasks: tuple[str, ...] = ()  # whose heads were learned from it and must be fitted again
    heads: int = 0  # erased with their task


@dataclass(frozen=True, slots=True)
class RenameReceipt:
    """What of a task has another name now.

    ``outdated``: some of its heads were learned for a name that the base knows, or not for one
    that it knows, and do not serve until they are fitted again. ``task_file`` is the path of the
    file that describes the task under its new name; ``kept_file`` still does under the old one.
    """

    old: str
    new: str
    records: int = 0
    choices: int = 0
    pools: int = 0
    log_entries: int = 0
    heads: int = 0
    outdated: bool = False
    task_file: str | None = None
    kept_file: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class HeadState:
    """One user's head for one task and role, as stored.

    ``weight`` has shape ``(d,)``, float32; ``precision`` (the Laplace posterior precision)
    has shape ``(d, d)``, float32; both are in the order of ``features``.
    """

    task: str
    role: Role
    base_id: str
    features: tuple[str, ...]
    weight: Float1d
    precision: Float2d
    switch: Switch
    n_queries: int
    prior_scale: float
    report: JsonDict
    version: int = 0  # given by the store
    created: float = 0.0  # unix seconds, given by the store
    stale: bool = False  # something it was learned from has been forgotten


@dataclass(frozen=True, slots=True)
class ReportRow:
    """Mean utility of one way to answer, on the user's own held-out queries."""

    name: str
    utility: float | None  # None: could not be measured; ``note`` says why
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Gain:
    """A paired mean difference in utility with its one-sided lower bound at ``confidence``."""

    mean: float
    low: float
    n: int
    confidence: float = 0.8


@dataclass(frozen=True, slots=True)
class RoleReport:
    """What fitting one head found, and what the gate switched on."""

    role: Role
    switch: Switch
    reason: str
    rows: tuple[ReportRow, ...]
    shared_over_baseline: Gain | None
    personal_over_shared: Gain | None
    n_queries: int
    prior_scale: float
    version: int | None  # None: nothing was fitted, the shared head serves


@dataclass(frozen=True, slots=True)
class FitReport:
    """What ``fit_head`` did for one task, and what it cost."""

    task: str
    kind: Kind
    records: int
    roles: tuple[RoleReport, ...]
    texts_embedded: int
    vectors_reused: int
    llm_calls: int
    pools_made: int
    pools_reused: int
    seconds: float
    notes: tuple[str, ...] = ()
    llm_seconds: float = 0.0  # of these seconds: what the LLM took


@dataclass(frozen=True, slots=True)
class ChoiceResult:
    """What a choice changed: the head's new version, and the record kept of it if any.

    ``update_ms`` is the time of the step alone, once the history is encoded; 0 without a step.
    """

    generation_id: str
    task: str
    text: str
    head_version: int | None
    record_id: str | None
    update_ms: float


@dataclass(frozen=True, slots=True)
class UndoneChoice:
    """A choice that was taken back, and what it left.

    ``record_id`` is the record that was kept of it; ``record_erased`` is whether that went with
    it, which it does unless it says something else by now, or is not the choice's own: the commit
    that the git hook learned from stays.
    """

    generation_id: str
    task: str
    query: str
    text: str
    record_id: str | None
    record_erased: bool
    head_version: int | None  # the adapter's in use now
    fitted_again: bool  # or it, or the reranker's, would still know the choice
    record_is_own: bool  # made of the choice; False, too, where there is none
