"""Whom and what to ask about: the users, their pseudo-queries, and the reranker they start from.

Stage one needs no LLM: a reranker is fitted on agreement of earlier outputs with later ones,
and decides which records the LLM is shown. The plan names users and records by id only. Users
are drawn, never records; a pseudo-query is one of a user's last records.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import get_args

import numpy as np

from export.data import LEAST_EARLIER, LEAST_RECORDS, UserHistory, numbered, sample_users
from export.priors import Labelled, fit_scale, label_reranker, priors_of_role, scaled
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import BundleError, ConfigError
from hydra_edge.features import feature_names
from hydra_edge.llm.names import read_name
from hydra_edge.population import BASELINE_FEATURE
from hydra_edge.types import Float2d, JsonDict, Kind, Progress, Role

UsersByTask = Mapping[str, Sequence[UserHistory]]

# What stands at the end of an array's name decides which values it may have.
RESERVED = (".std", ".tau", ".precision")


@dataclass(frozen=True, slots=True)
class LlmPlan:
    """How much one LLM is asked: pools of answers for users' last records.

    ``text_users`` and ``label_users`` are users drawn of each task with free text, and with a
    closed set; ``queries`` are pseudo-queries of each. ``record_queries`` of a task's are asked
    again with each of ``records`` single records: labels for one's own use, which no stage reads;
    0 is off.
    """

    name: str
    text_users: int = 40
    label_users: int = 32
    queries: int = 3
    record_queries: int = 0
    records: int = 0


# The small model is the default one on a device and cheap to ask: it is asked most.
KNOWN_PLANS = (LlmPlan("smollm2", 80, 40, 4), LlmPlan("gemma3", 40, 32, 3))


@dataclass(frozen=True)
class Plan:
    """How much is labelled; ``reranker_*`` is what the first reranker is fitted on, per task."""

    seed: int = 0
    least_records: int = LEAST_RECORDS
    reranker_users: int = 40
    reranker_queries: int = 40
    llms: tuple[LlmPlan, ...] = field(default=KNOWN_PLANS)

    def as_json(self) -> JsonDict:
        """Return it as it is written down."""
        plain: JsonDict = json.loads(json.dumps(asdict(self)))
        return plain


def stated_names(specs: Iterable[str]) -> dict[str, str]:
    """Return what LLMs are called where others read it, by spec: no folder of this machine.

    A local model goes by the name of its file.
    """
    names: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        read = read_name(spec)
        own = PureWindowsPath(read.target).name if read.kind == "file" else spec
        names[spec] = numbered(own, names.values())
    return names


def stated_plan(plan: JsonDict) -> JsonDict:
    """Return a plan as others read it, its LLMs by ``stated_names``."""
    names = stated_names(llm["name"] for llm in plan["llms"])
    return {**plan, "llms": [{**llm, "name": names[llm["name"]]} for llm in plan["llms"]]}


def plan_for(name: str, sizes: str = "") -> LlmPlan:
    """Return the plan of one LLM: ``sizes`` if given, else the known one, else the default.

    Parameters
    ----------
    sizes
        The numbers of ``LlmPlan`` in order, ``80,40,4``, or with single records ``80,40,4,60,4``.

    Raises
    ------
    ConfigError
        If ``sizes`` are not three or five whole numbers.
    """
    if not sizes:
        return next((plan for plan in KNOWN_PLANS if plan.name == name), LlmPlan(name))
    parts = [part.strip() for part in sizes.split(",")]
    if len(parts) not in {3, 5} or not all(part.isdecimal() for part in parts):
        raise ConfigError(
            f"--pools {name}={sizes} is not understood; expected users of a text task, users of "
            "a label task and queries of each, 80,40,4; and, for labels of single records that "
            "no stage reads, queries and records of each, 80,40,4,60,4. Correct it."
        )
    return LlmPlan(name, *map(int, parts))


@dataclass(frozen=True, eq=False)
class Maps:
    """Arrays for ``maps.safetensors``, and what they were measured to be worth."""

    arrays: dict[str, Float2d]
    quality: JsonDict


def as_float32(arrays: Mapping[str, Float2d]) -> dict[str, Float2d]:
    """Return the arrays as they are stored."""
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in arrays.items()}


def role_maps(role: Role, labelled: Sequence[Labelled]) -> Maps:
    """Fit one role's scaling and priors from raw (neutrally scaled) features."""
    names = feature_names(role)
    scale = fit_scale(labelled)
    ready = scaled(labelled, scale)
    arrays, report = priors_of_role(ready, role, names, BASELINE_FEATURE[role])
    arrays[f"{role}.scale.mean"] = scale.mean
    arrays[f"{role}.scale.std"] = scale.std
    return Maps(arrays, report)


def reranker_users(users: UsersByTask, plan: Plan) -> list[UserHistory]:
    """Draw the users the first reranker is fitted on, task by task."""
    return [
        user
        for task in sorted(users)
        for user in sample_users(
            users[task], plan.reranker_users, least=plan.least_records, seed=plan.seed
        )
    ]


def mine_reranker(
    users: UsersByTask, neutral: Bundle, encoder: TextEncoder, plan: Plan, progress: Progress
) -> Maps:
    """Fit a reranker that needs no LLM.

    Parameters
    ----------
    users
        Training users by task; none of them may be used for measuring.
    neutral
        A bundle of the encoder with neutral maps for this release's features.

    Raises
    ------
    BundleError
        If there are fewer than two users, or a task has a name that a base cannot hold.
    """
    drawn = reranker_users(users, plan)
    _refuse_few(drawn, f"with {plan.least_records} records of a task")
    check_names(users)
    labelled = label_reranker(drawn, neutral, encoder, plan.reranker_queries, progress)
    telling = [user for user in labelled if user.items]
    _refuse_few(telling, "with records that can be told apart")
    return role_maps("reranker", telling)


def _refuse_few(users: Sequence[UserHistory] | Sequence[Labelled], what: str) -> None:
    if (n := len({user.user for user in users})) < 2:
        raise BundleError(
            f"Nothing can be trained: found {n} users {what}; expected two or more, for what is "
            "learned is judged on others. Give more histories."
        )


def check_names(tasks: Iterable[str]) -> None:
    """Refuse tasks whose names would be mistaken for something else in a base.

    Raises
    ------
    BundleError
        If one is named like a kind of task, or ends like an array of another sort.
    """
    for task in sorted(tasks):
        if task in get_args(Kind):
            raise BundleError(
                f"Got the task name {task!r}, which is that of a kind of task; expected another. "
                "Rename it in the data."
            )
        if task.endswith(RESERVED):
            raise BundleError(
                f"Got the task name {task!r}; expected one that does not end in "
                f"{', '.join(RESERVED)}, as arrays of a base do. Rename it in the data."
            )


@dataclass(frozen=True, slots=True)
class Question:
    """A pseudo-query by name: which record of whom is to be answered from what came before."""

    task: str
    user: str
    record_id: str


@dataclass(frozen=True)
class Questions:
    """What one LLM is to be asked, in order; ``by_record`` again with single records."""

    llm: str
    pools: tuple[Question, ...]
    by_record: tuple[Question, ...] = ()
    records: int = 0


def _asked_users(users: UsersByTask, llm: LlmPlan, plan: Plan) -> list[UserHistory]:
    drawn: list[UserHistory] = []
    for task in sorted(users):
        text = users[task][0].full_spec.kind == "text"
        n = llm.text_users if text else llm.label_users
        drawn += sample_users(users[task], n, least=plan.least_records, seed=plan.seed)
    return drawn


def questions_for(users: UsersByTask, llm: LlmPlan, plan: Plan) -> Questions:
    """List the pseudo-queries of one LLM in the order they will be asked.

    Round by round, each user's last record first, then the one before; shuffled within a
    round. Whoever stops early has a balanced set.
    """
    drawn = _asked_users(users, llm, plan)
    pools: list[Question] = []
    for back in range(llm.queries):
        order = list(range(len(drawn)))
        random.Random(back).shuffle(order)
        for user in (drawn[j] for j in order):
            position = len(user.records) - 1 - back
            if position >= LEAST_EARLIER:
                pools.append(Question(user.task, user.user, user.records[position].id))
    first: list[Question] = []
    for task in sorted(users) if llm.records else ():
        first += [q for q in pools if q.task == task][: llm.record_queries]
    order_of = {question: i for i, question in enumerate(pools)}
    first.sort(key=order_of.__getitem__)
    return Questions(llm.name, tuple(pools), tuple(first), llm.records)


def write_plan(path: Path, users: UsersByTask, plan: Plan) -> None:
    """Write down whom and what is asked about; ids only, no text."""
    drawn = reranker_users(users, plan)
    written: JsonDict = {
        "plan": plan.as_json(),
        "reranker": {task: [u.user for u in drawn if u.task == task] for task in sorted(users)},
        "llms": [],
    }
    for llm in plan.llms:
        questions = questions_for(users, llm, plan)
        written["llms"].append(
            {
                "llm": llm.name,
                "users": {
                    task: sorted({q.user for q in questions.pools if q.task == task})
                    for task in sorted(users)
                },
                "pools": [[q.task, q.user, q.record_id] for q in questions.pools],
                "by_record": [[q.task, q.user, q.record_id] for q in questions.by_record],
                "records": questions.records,
            }
        )
    path.write_text(json.dumps(written, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


def read_plan(path: Path) -> list[Questions]:
    """Read what each LLM is to be asked.

    Raises
    ------
    BundleError
        If the file is no such plan.
    """
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return [
            Questions(
                part["llm"],
                tuple(Question(*names) for names in part["pools"]),
                tuple(Question(*names) for names in part["by_record"]),
                part["records"],
            )
            for part in written["llms"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise BundleError(
            f"{path} is not a plan of questions ({err!r}); expected what stage mine leaves. Run "
            "it again: python -m export build --only mine."
        ) from err
