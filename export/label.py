"""What a real LLM answers to users' own past queries: the material the adapter is trained on.

Owns the prompts (the records that the first reranker chooses, earlier ones only) and how their
answers are asked for once and replayed from then on. Refuses a prompt that shows a record its
query could not have seen. What an answer is worth is judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from export.cache import CachedLLM
from export.data import LeakError, UserHistory
from export.labels import PoolLabel, RecordLabel
from export.mine import Question, Questions, UsersByTask
from export.priors import engine_for
from export.shown import Shown
from hydra_edge.bundle import Bundle
from hydra_edge.buying import MAX_FAILURES
from hydra_edge.candidates import Draw, Sampling, complete_within_context
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, BundleError, ContextLengthError
from hydra_edge.history import History
from hydra_edge.prompt import Prompt
from hydra_edge.retrieval import first_stage
from hydra_edge.spelling import fold_label
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Int1d, Progress, Record

SAMPLING = Sampling(n=8, shown=4, temperature=0.8)
# Answers to a free text's query alone: as many as a pool may be best made of.
ZERO_SHOT = 4
# One answer to one record: the greedy one, which no temperature changes.
SINGLE = Sampling(n=1, shown=1, temperature=0.0)


@dataclass(frozen=True)
class Job:
    """One pseudo-query of one user, to be put to the LLM ``llm`` (its spec in the plan)."""

    llm: str
    user: UserHistory
    record_id: str


@dataclass(frozen=True)
class Ask:
    """A job with its prompt, ready to be sent."""

    job: Job
    position: int
    prompt: Prompt
    sampling: Sampling


@dataclass(frozen=True)
class Answered:
    """What an LLM answered: ``prompt`` is what of the ask's prompt had room.

    ``plain`` are the answers to the query alone, where they are asked for.
    """

    prompt: Prompt
    completions: list[Completion]
    plain: list[Completion]


def jobs_of(questions: Questions, users: UsersByTask, *, by_record: bool = False) -> list[Job]:
    """Look up the users of a plan's questions.

    Raises
    ------
    BundleError
        If the plan names a user who is not among them.
    """
    known = {(user.task, user.user): user for of_task in users.values() for user in of_task}
    asked = questions.by_record if by_record else questions.pools
    check_known(asked, users)
    return [Job(questions.llm, known[q.task, q.user], q.record_id) for q in asked]


def check_known(asked: Iterable[Question | PoolLabel], users: UsersByTask) -> None:
    """Refuse questions about other histories than these.

    Raises
    ------
    BundleError
        If one names a user or a record that is not among them, or an answered one whose place in
        its history is another by now.
    """
    known = {(u.task, u.user): [r.id for r in u.records] for of in users.values() for u in of}
    held = {whose: frozenset(ids) for whose, ids in known.items()}
    for one in asked:
        whose, user = (one.task, one.user), f"user {one.user} ({one.task})"
        if whose not in known or one.record_id not in held[whose]:
            missing = user if whose not in known else f"record {one.record_id} of {user}"
            raise BundleError(
                f"The plan names {missing}, which is not in the data; expected the histories it "
                "was made from. Run stage mine on these."
            )
        if isinstance(one, PoolLabel):
            place = one.position
            if known[whose][place : place + 1] != [one.record_id]:
                raise BundleError(
                    f"The answers to record {one.record_id} of {user} were made when it was in "
                    f"place {place} of that history; expected it there. Run stages mine and label "
                    "on these histories."
                )


def check_shown(prompt: Prompt, history: History, position: int, declared: TaskSpec | None) -> None:
    """Refuse a prompt that shows the query's own record or a later one, or a label of them.

    Parameters
    ----------
    declared
        The task as it is known without this user's answers, if it is.

    Raises
    ------
    LeakError
        At the first such record, or label of the closed set.
    """
    place = {record.id: i for i, record in enumerate(history.records)}
    own = history.records[position]
    for record_id in prompt.record_ids:
        at = place.get(record_id)
        if at is None or at >= position:
            what = "itself" if at == position else f"{record_id}, no earlier record"
            raise LeakError(
                f"Leak in labelling {history.task.name}: the prompt of record {own.id} shows "
                f"{what}; expected records before position {position} only. Correct what chose "
                "it; nothing was asked."
            )
    allowed = set(map(fold_label, declared.labels)) if declared else set()
    allowed |= {fold_label(record.output) for record in history.records[:position]}
    for label in prompt.task.labels:
        if fold_label(label) not in allowed:
            raise LeakError(
                f"Leak in labelling {history.task.name}: the prompt of record {own.id} offers "
                f"{label!r}; expected what the task declares or was answered earlier. Correct "
                "the closed set; nothing was asked."
            )


def _best(engine: Engine, history: History, position: int) -> list[list[Record]]:
    """Choose the records to show as the device would: the first reranker's best, of the past."""
    record, past = history.records[position], history.before(position)
    head = engine.shared(history.task, "reranker")
    vector = history.inputs[position]
    ranked = engine.rank(head, record.input, vector, past, k=SAMPLING.shown)
    return [[one.record for one in ranked]]


def _one_by_one(engine: Engine, history: History, position: int, n: int) -> list[list[Record]]:
    """Choose ``n`` single records spread over the shortlist, so that far ones are known too."""
    record, past = history.records[position], history.before(position)
    listed = first_stage(record.input, history.inputs[position], past, engine.lexical(past))
    return [[past.records[int(i)]] for i in listed.index[spread(len(listed), n)]]


def spread(m: int, n: int) -> Int1d:
    """Choose ``n`` of ``m`` rows: the best half of them, the others evenly from the rest."""
    if m <= n:
        return np.arange(m)
    best = (n + 1) // 2
    rest = np.linspace(best, m - 1, n - best)
    return np.concatenate((np.arange(best), rest.round().astype(np.int64)))


def _prepare(
    bundle: Bundle,
    encoder: TextEncoder,
    jobs: Sequence[Job],
    sampling: Sampling,
    choose: Callable[[UserHistory, Engine, History, int], list[list[Record]]],
    progress: Progress | None,
) -> list[Ask]:
    """Build every prompt, user by user, and return them in the order of the jobs."""
    of_user: dict[tuple[str, str], list[int]] = {}
    for i, job in enumerate(jobs):
        of_user.setdefault((job.user.task, job.user.user), []).append(i)
    asks: dict[int, list[Ask]] = {}
    for done, indices in enumerate(of_user.values(), start=1):
        user = jobs[indices[0]].user
        engine = engine_for(user, bundle, encoder)
        with engine.store:  # closed whatever a leak found in a prompt stops
            task = engine.task(user.task)
            history = engine.history(task)
            place = {record.id: i for i, record in enumerate(history.records)}
            prompts: dict[int, list[Prompt]] = {}  # several LLMs may be asked the same
            for i in indices:
                position = place[jobs[i].record_id]
                if position not in prompts:
                    prompts[position] = [
                        _prompt(engine, history, position, shown)
                        for shown in choose(user, engine, history, position)
                    ]
                asks[i] = [Ask(jobs[i], position, prompt, sampling) for prompt in prompts[position]]
        if progress is not None:
            progress("prompts", done, len(of_user))
    return [ask for i in range(len(jobs)) for ask in asks[i]]


def _prompt(engine: Engine, history: History, position: int, shown: Sequence[Record]) -> Prompt:
    past = history.records[:position]
    # A closed set is part of the prompt: of the user's own answers only the earlier are in it.
    task = engine.shown_task(history.task, past)
    prompt = engine.prompt(task, history.records[position].input, shown)
    check_shown(prompt, history, position, engine.declared(history.task.name))
    return prompt


def ask_all(llm: CachedLLM, asks: Sequence[Ask], progress: Progress, stage: str) -> int:
    """Put every prompt to an LLM that has not been answered; return how many that were.

    Each answer is kept at once: whoever is stopped goes on where they stopped. A prompt that the
    LLM will not answer (a filter of a remote one, say) is passed over.

    Raises
    ------
    BackendError
        If ``MAX_FAILURES`` in a row have no answer.
    """
    before, failures = llm.asked, 0
    for done, ask in enumerate(asks, start=1):
        try:
            _answer(llm, ask)
        except BackendError:
            failures += 1
            if failures == MAX_FAILURES:
                raise
        else:
            failures = 0
        progress(stage, done, len(asks))
    return llm.asked - before


def _answer(llm: CachedLLM, ask: Ask) -> Answered | None:
    """Ask, or replay, a prompt and where it shows records the query alone; None without room."""
    draw = Draw(ask.sampling.n, ask.sampling.temperature, ask.prompt.task.max_tokens)
    try:
        asked, completions = complete_within_context(llm, ask.prompt, draw)
    except ContextLengthError:
        return None
    plain: list[Completion] = []
    if draw.n > 1 and ask.prompt.task.kind == "text" and ask.prompt.shots:
        alone = ask.prompt.without_shots()
        _, plain = complete_within_context(llm, alone, replace(draw, n=ZERO_SHOT))
    return Answered(asked, completions, plain)


def _kept(caches: Mapping[str, CachedLLM], asks: Sequence[Ask]) -> Iterator[tuple[Ask, Answered]]:
    """Replay what was answered, in order; what never was is left out."""
    replays = {name: cache.replay() for name, cache in caches.items()}
    for ask in asks:
        try:
            answered = _answer(replays[ask.job.llm], ask)
        except BackendError:
            continue
        if answered is not None:
            yield ask, answered


def unanswered(llm: CachedLLM, asks: Sequence[Ask]) -> list[int]:
    """Return the places of the prompts an LLM has not been asked yet."""
    replay, missing = llm.replay(), []
    for i, ask in enumerate(asks):
        try:
            _answer(replay, ask)
        except BackendError:
            missing.append(i)
    return missing


def prepare_pools(
    bundle: Bundle,
    encoder: TextEncoder,
    jobs: Sequence[Job],
    progress: Progress | None = None,
    shown: Shown = MappingProxyType({}),
) -> list[Ask]:
    """Build the prompts of pools, with the records a base's reranker chooses.

    Parameters
    ----------
    shown
        What to show instead, for the queries it names.

    Raises
    ------
    LeakError
        If one would show a record that its query could not have seen.
    """

    def choose(
        user: UserHistory, engine: Engine, history: History, position: int
    ) -> list[list[Record]]:
        ids = shown.get((user.task, user.user, history.records[position].id))
        known = {record.id: record for record in history.records}
        if ids is None or not known.keys() >= set(ids):
            return _best(engine, history, position)
        return [[known[record_id] for record_id in ids]]

    return _prepare(bundle, encoder, jobs, SAMPLING, choose, progress)


def shown_by(asks: Iterable[Ask]) -> dict[tuple[str, str, str], tuple[str, ...]]:
    """Return which records prompts show, best first, by task, user and query."""
    return {
        (ask.job.user.task, ask.job.user.user, ask.job.record_id): ask.prompt.record_ids[::-1]
        for ask in asks
    }


def prepare_records(
    bundle: Bundle,
    encoder: TextEncoder,
    jobs: Sequence[Job],
    records: int,
    progress: Progress | None = None,
) -> list[Ask]:
    """Build the prompts that show one record each: ``records`` for every job."""

    def choose(
        _user: UserHistory, engine: Engine, history: History, position: int
    ) -> list[list[Record]]:
        return _one_by_one(engine, history, position, records)

    return _prepare(bundle, encoder, jobs, SINGLE, choose, progress)


def pools_kept(caches: Mapping[str, CachedLLM], asks: Sequence[Ask]) -> Iterator[PoolLabel]:
    """Replay the pools of prepared prompts from caches alone; ``caches`` by spec of the LLM."""
    for ask, kept in _kept(caches, asks):
        job = ask.job
        yield PoolLabel(
            job.llm, job.user.user, job.record_id, ask.position, kept.prompt.record_ids,
            tuple(kept.completions), job.user.task, tuple(kept.plain),
        )  # fmt: skip


def records_kept(caches: Mapping[str, CachedLLM], asks: Sequence[Ask]) -> Iterator[RecordLabel]:
    """Replay the answers to single records; one that had no room for the record is none."""
    for ask, kept in _kept(caches, asks):
        job = ask.job
        if kept.prompt.shots and kept.completions:
            yield RecordLabel(
                job.llm, job.user.user, job.record_id, ask.position,
                kept.prompt.record_ids[0], kept.completions[0], job.user.task,
            )  # fmt: skip
