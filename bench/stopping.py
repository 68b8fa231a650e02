"""What stopping early would save: answers left unfinished, and what the choice loses by it.

    python -m bench.stopping --data commit_subject.dev.jsonl.gz --llm gemma3 --replay

Pools are kept answers, so nothing is timed: a step is one evaluation of all answers still being
written, and a pool of two prompts is written in two batches, as on the device. Answers finish in
the order of their lengths. Rules: stop once ``m`` answers are finished; stop each prompt's batch
when all but its last one or two are; or stop once the chance that one of those missing beats the
best so far is below a bound, their scores taken as drawn from the scores so far and the spread of
other users' pools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.case import Case
from bench.command import start
from bench.datasets import TaskData
from bench.guard import BenchError
from bench.kept import app_of, cases
from bench.run import Bench
from export.label import SAMPLING
from hydra_edge.adapter import choose, merge
from hydra_edge.types import Completion, JsonDict
from hydra_edge.utility import utility

BOUNDS = (0.3, 0.2, 0.1, 0.05, 0.02)
STRAGGLERS = (1, 2)  # answers of a batch that are not waited for
LEAST_SEEN = 2  # finished answers before a spread says anything
_PRIOR_ANSWERS = 2.0  # how many answers the spread of other users' pools counts for


@dataclass(frozen=True, slots=True)
class Moment:
    """A pool once one more answer is finished.

    ``scores`` are those of the answers so far, ``utility`` is that of the one chosen of them;
    ``steps`` and ``tokens`` have been spent by then.
    """

    scores: tuple[float, ...]
    text: str
    utility: float
    steps: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Course:
    """A pool from its first finished answer to its last, and whose it is.

    ``trimmed``: its end if so many stragglers of each batch are not waited for.
    """

    user: str
    moments: tuple[Moment, ...]
    trimmed: dict[int, Moment] = field(default_factory=dict)


Rule = Callable[[Moment, int, float], bool]


def finishes(completions: Sequence[Completion], stragglers: int = 0) -> list[tuple[int, int, int]]:
    """Return each answer's place, and the steps and tokens spent when it is finished.

    The answers to the prompt without records are begun when all others are finished. Of each
    prompt's answers the last ``stragglers`` are given up, at least two kept.
    """
    found: list[tuple[int, int, int]] = []
    begun_at = tokens = 0
    for zero_shot in (False, True):
        batch = [i for i, c in enumerate(completions) if c.zero_shot is zero_shot]
        kept = max(len(batch) - stragglers, min(len(batch), 2))
        for i in sorted(batch, key=lambda i: completions[i].tokens)[:kept]:
            length = completions[i].tokens
            written = sum(min(completions[j].tokens, length) for j in batch)
            found.append((i, begun_at + length, tokens + written))
        if batch:
            begun_at, tokens = found[-1][1:]
    return found


def course_of(case: Case) -> Course:
    """Follow one query's pool."""
    truth = case.subject.user.records[case.position].output
    completions = case.sampled("gated").completions
    shown, history = case.sampled("gated").pool.shown, case.history
    head, lexical = case.head("adapter"), case.engine.lexical(case.history)

    def moment(places: Sequence[int], steps: int, tokens: int) -> Moment | None:
        candidates = merge([completions[i] for i in sorted(places)], case.task)
        if not candidates:
            return None
        pool = case.engine.pool(case.query, case.vector, candidates, shown, history, lexical)
        choice = choose(head, pool, history)
        return Moment(
            tuple(c.score for c in choice.candidates for _ in range(max(c.count, 1))),
            choice.text, utility(choice.text, truth, case.task), steps, tokens,
        )  # fmt: skip

    course = finishes(completions)
    places = [place for place, _, _ in course]
    moments = [moment(places[: i + 1], *spent) for i, (_, *spent) in enumerate(course)]
    trimmed = {}
    for stragglers in STRAGGLERS:
        short = finishes(completions, stragglers)
        end = moment([place for place, _, _ in short], *short[-1][1:])
        if end is not None:
            trimmed[stragglers] = end
    return Course(case.subject.user.user, tuple(m for m in moments if m is not None), trimmed)


def chance_beaten(scores: Sequence[float], missing: int, spread: float) -> float:
    """Return the chance that one of ``missing`` answers scores above the best so far.

    Parameters
    ----------
    scores
        Of the answers so far, at least one.
    spread
        Standard deviation of scores within other pools.
    """
    if missing <= 0:
        return 0.0
    mean, n = float(np.mean(scores)), len(scores)
    squares = float(np.sum((np.asarray(scores) - mean) ** 2)) + _PRIOR_ANSWERS * spread**2
    deviation = math.sqrt(squares / (n - 1 + _PRIOR_ANSWERS)) * math.sqrt(1 + 1 / n)
    if deviation == 0.0:
        return 0.0
    below = 0.5 * (1 + math.erf((max(scores) - mean) / deviation / math.sqrt(2)))
    return 1.0 - float(below**missing)


def finished(m: int) -> Rule:
    """Stop once ``m`` answers are finished."""
    return lambda moment, _missing, _spread: len(moment.scores) >= m


def unlikely(bound: float) -> Rule:
    """Stop once the chance to be beaten is below ``bound``."""

    def rule(moment: Moment, missing: int, spread: float) -> bool:
        seen = len(moment.scores)
        return seen >= LEAST_SEEN and chance_beaten(moment.scores, missing, spread) < bound

    return rule


def spread_without(courses: Sequence[Course], user: str) -> float:
    """Return the standard deviation of scores within the full pools of all other users."""
    pools = [c.moments[-1].scores for c in courses if c.user != user]
    return math.sqrt(float(np.mean([np.var(pool) for pool in pools]))) if pools else 0.0


def apply(rule: Rule, courses: Sequence[Course]) -> JsonDict:
    """Stop every pool by a rule; return what is kept and saved, as shares of the full pools."""
    stopped: list[Moment] = []
    for course in courses:
        total, spread = len(course.moments[-1].scores), spread_without(courses, course.user)
        stopped.append(
            next(
                (m for m in course.moments if rule(m, total - len(m.scores), spread)),
                course.moments[-1],
            )
        )
    return compare(stopped, courses)


def trim(stragglers: int, courses: Sequence[Course]) -> JsonDict:
    """Wait for none of so many stragglers; return what ``apply`` does."""
    return compare(
        [course.trimmed.get(stragglers, course.moments[-1]) for course in courses], courses
    )


def compare(stopped: Sequence[Moment], courses: Sequence[Course]) -> JsonDict:
    """Compare pools that were stopped with the full ones."""
    full = [course.moments[-1] for course in courses]
    worth = sum(m.utility for m in full)  # 0 where no answer was right: no share of it is kept
    return {
        "utility_kept": sum(m.utility for m in stopped) / worth if worth else None,
        "steps_saved": 1 - sum(m.steps for m in stopped) / sum(m.steps for m in full),
        "tokens_saved": 1 - sum(m.tokens for m in stopped) / sum(m.tokens for m in full),
        "same_choice": float(
            np.mean([a.text == b.text for a, b in zip(stopped, full, strict=True)])
        ),
    }


def rules() -> dict[str, Rule]:
    """Return the rules measured, by what the table calls them."""
    by_number = {f"{m} of {SAMPLING.n} finished": finished(m) for m in range(4, SAMPLING.n)}
    return by_number | {f"chance to be beaten < {b}": unlikely(b) for b in BOUNDS}


def check_text(tasks: Sequence[TaskData]) -> None:
    """Refuse closed sets.

    Raises
    ------
    BenchError
        If there is one.
    """
    if closed := [data for data in tasks if data.spec.kind != "text"]:
        raise BenchError(
            f"{closed[0].name} is of kind {closed[0].spec.kind}; expected tasks of free text. "
            "Leave it out with --task; for closed sets there is python -m bench.votes."
        )


def measure(bench: Bench, tasks: Sequence[TaskData], console: Console) -> JsonDict:
    """Measure what rules that stop a pool early keep and save.

    Raises
    ------
    BenchError
        If a task is a closed set, or all answers to it are blank.
    """
    check_text(tasks)
    figures = {}
    for data in tasks:
        followed = (course_of(case) for case in cases(bench, data))
        courses = [course for course in followed if course.moments]
        if not courses:
            raise BenchError(
                f"{data.name} has no pool to stop: got blank answers only; expected some text. "
                "Leave it out with --task."
            )
        found = {title: apply(rule, courses) for title, rule in rules().items()}
        found |= {f"all but {k} of each prompt": trim(k, courses) for k in STRAGGLERS}
        table = Table(
            "rule", "utility kept", "steps saved", "tokens saved", "same choice",
            title=escape(f"{data.name}, {bench.llm.name}: {len(courses)} pools"),
        )  # fmt: skip
        for title, shares in found.items():
            said = ("-" if share is None else f"{share:.1%}" for share in shares.values())
            table.add_row(title, *said)
        console.print(table)
        figures[data.name] = {"pools": len(courses), "rules": found}
    return {"tasks": figures}


app = app_of("stopping", measure, "free-text")

if __name__ == "__main__":
    start(app)
