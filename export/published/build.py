"""From training histories to the published method's encoders: label, train, save, load.

Owns the order of things and the folder's contents. Resumable by the cache of answers; the same
answers, seed and threads give the same weights.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors.torch import save_file

from export.data import (
    LEAST_RECORDS,
    UserHistory,
    by_task,
    fingerprint,
    read_users,
    sample_users,
    sha256_of,
    with_specs,
)
from export.encoder import source_name
from export.published.card import CARD_FILE, FILES, ROLES, Card, read_card, verify
from export.published.labels import (
    Allowance,
    Labelled,
    affordable,
    draw,
    label_pools,
    label_records,
    task_before,
)
from export.published.model import CONFIG_FILE, SOURCE_WEIGHTS, TOKENIZER_FILE, CrossEncoder
from export.published.train import Recipe, Trained, train_base
from hydra_edge.errors import BundleError, ConfigError
from hydra_edge.llm import LLM
from hydra_edge.types import JsonDict, Progress, Role


@dataclass(frozen=True)
class Plan:
    """How much is labelled, users a task and answers a user, and how it is trained on."""

    users: int = 30
    allowance: Allowance = field(default_factory=Allowance)
    recipe: Recipe = field(default_factory=Recipe)
    max_tokens: int = 128
    seed: int = 0


def build(
    paths: Sequence[Path],
    out: Path,
    llm: LLM,
    plan: Plan,
    *,
    source: Path,
    only: Sequence[str] = (),
    progress: Progress,
) -> list[Card]:
    """Train both encoders of every task in the files; each is saved as soon as it is done.

    Parameters
    ----------
    paths
        Training files; none of their users may be used for measuring.
    out
        Where each task gets a folder of its own; an older one of the task is replaced.
    llm
        Whose answers are the labels; best wrapped in a cache.
    source
        The model folder to start from.
    only
        These tasks; all, if empty.

    Raises
    ------
    ConfigError
        If a task wanted has no user with enough records, or a folder in the way is not ours.
    BackendError
        If the LLM does not answer; in a replay, if it was not asked before.
    """
    everyone = with_specs(by_task(read_users(paths)))
    present = sorted(everyone)
    if unknown := sorted(set(only) - set(present)):
        raise ConfigError(f"No users of task {unknown[0]!r}; the data has {', '.join(present)}.")
    cards = []
    for task in [name for name in present if name in only or not only]:
        users = sample_users(everyone[task], plan.users, least=LEAST_RECORDS, seed=plan.seed)
        if not users:
            raise ConfigError(
                f"Nobody of {task} has {LEAST_RECORDS} records; expected users to train on. "
                "Leave the task out, or give more data."
            )
        cards.append(_build_task(paths, out, llm, plan, source, users, progress))
    return cards


def label_users(
    users: Sequence[UserHistory], llm: LLM, plan: Plan, progress: Progress
) -> dict[Role, list[Labelled]]:
    """Label training users for both roles, all of whose records may be pseudo-queries."""
    found: dict[Role, list[Labelled]] = {"reranker": [], "adapter": []}
    for done, user in enumerate(users, start=1):
        edge = len(user.records)
        task = task_before(user, edge, user.custom_tasks)
        queries = draw(user, edge, plan.allowance.queries, seed=plan.seed)
        tried = affordable(queries, plan.allowance.record_calls)
        sampled = queries[: plan.allowance.pools]
        found["reranker"].append(label_records(llm, task, user, edge, tried))
        found["adapter"].append(label_pools(llm, task, user, edge, sampled))
        progress(f"{user.task}: labels of users", done, len(users))
    return found


def _build_task(
    paths: Sequence[Path],
    out: Path,
    llm: LLM,
    plan: Plan,
    source: Path,
    users: Sequence[UserHistory],
    progress: Progress,
) -> Card:
    task = users[0].task
    folder = out / (re.sub(r"[^A-Za-z0-9_-]+", "-", task).strip("-") or "task")
    if folder.exists() and not (folder / CARD_FILE).is_file():
        raise ConfigError(
            f"{folder} is in the way: found no {CARD_FILE} in it; expected nothing, or encoders "
            "trained before. Give another --out."
        )
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    labelled = label_users(users, llm, plan, progress)
    roles: dict[str, JsonDict] = {}
    for role in ROLES:
        started = time.perf_counter()
        trained = train_base(
            source, plan.max_tokens, labelled[role], plan.recipe, seed=plan.seed,
            stage=f"{task}: train {role}", progress=progress,
        )  # fmt: skip
        save_file(dict(trained.encoder.model.state_dict()), work / f"{role}.safetensors")
        roles[role] = _figures(labelled[role], trained, time.perf_counter() - started)
    for name in (CONFIG_FILE, TOKENIZER_FILE):
        shutil.copyfile(source / name, work / name)
    card = Card(
        task=task, max_tokens=plan.max_tokens, llm=llm.name, users=len(users),
        plan=json.loads(json.dumps(asdict(plan))), roles=roles,
        source={"model": source_name(source), "weights_sha256": sha256_of(source / SOURCE_WEIGHTS)},
        trained_on=fingerprint(paths),
        files={name: sha256_of(work / name) for name in FILES},
    )  # fmt: skip
    card.save(work)
    if folder.exists():
        shutil.rmtree(folder)
    work.rename(folder)
    return card


def _figures(labelled: Sequence[Labelled], trained: Trained, seconds: float) -> JsonDict:
    labels = [pair.label for user in labelled for pair in user.pairs]
    return {
        "pairs": len(labels),
        "queries": sum(len({p.query_id for p in user.pairs}) for user in labelled),
        "positive": round(sum(labels) / len(labels), 4),
        "llm_calls": sum(user.calls for user in labelled),
        "tokens": sum(user.tokens for user in labelled),
        "steps": trained.steps,
        "loss_first": round(trained.loss_first, 4),
        "loss_last": round(trained.loss_last, 4),
        "train_seconds": round(seconds, 1),
    }


def load_encoders(folder: Path) -> dict[Role, CrossEncoder]:
    """Load both encoders of one task's folder, verified before they are parsed.

    Raises
    ------
    BundleHashError
        If a file is not what the card states.
    BundleError
        If there is no card, or a file cannot be used.
    """
    card = read_card(folder)
    verify(folder, card)
    if not 8 <= card.max_tokens <= 512:
        raise BundleError(
            f"{folder / CARD_FILE}: got max_tokens {card.max_tokens}; expected 8 to 512. "
            "Train it again."
        )
    return {
        role: CrossEncoder.load(folder, card.max_tokens, f"{role}.safetensors") for role in ROLES
    }
