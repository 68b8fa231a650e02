"""The ladder from what a build left behind: material, folds, rungs, figures.

Owns where the material comes from and that both roles share folds. In every fold the adapter's
features rest on a reranker that was fitted without the users left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from export import adapter_priors
from export.data import LEAST_RECORDS, UserHistory, fingerprint, sample_users
from export.labels import PoolLabel, read_pools
from export.ladder.climb import Fold, Judged, Material, Trial, split
from export.ladder.material import (
    Answers,
    Person,
    Profiles,
    adapter_people,
    profiles_of,
    reranker_people,
)
from export.ladder.report import summarize
from export.ladder.rungs import COMPONENTS, FREE, LOWEST, Rung, rungs_of
from export.ladder.tuned import CutEncoder, Tuning
from export.ladder.tuned import tune as tune_encoder
from export.metalearn import Recipe
from export.mine import Plan
from export.priors import RIDGES, TAUS, Population, prior_arrays, with_maps
from export.workshop import PLAN_FILE, Settings, Workshop
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import ConfigError
from hydra_edge.types import Float2d, JsonDict, Progress

RERANKER_TRIAL = Trial(TAUS, RIDGES)
# The lowest rung on the encoder as it is, and on the one that was trained.
ENCODERS = ("encoder_as_it_is", "encoder_tuned")
ADAPTER_TRIAL = Trial(adapter_priors.TAUS, adapter_priors.RIDGES)


@dataclass(frozen=True, slots=True)
class Size:
    """How much the ladder is climbed with; ``dims`` are numbers of learned features to try."""

    folds: int = 3
    dims: tuple[int, ...] = (4, 8)
    reranker_queries: int = 25
    closed_users: int = 40
    closed_queries: int = 12
    tuned_users: int = 8  # of each task, on whom the encoder is trained
    tuned_left: int = 8  # of each task, on whom it is judged: of the first fold's
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Climb:
    """What is there to climb with; ``records`` are the people of the reranker."""

    shop: Workshop
    records: list[UserHistory]
    answers: Answers


def gather(shop: Workshop, size: Size) -> Climb:
    """Find the users and the answers that the build's own stages used.

    Raises
    ------
    ConfigError
        If the build has not been run so far.
    """
    plan_file, quality_file = shop.at("mine", PLAN_FILE), shop.at("train", "quality.json")
    pools_file = shop.at("label", "pools.jsonl.gz")
    if missing := [str(p) for p in (plan_file, pools_file, quality_file) if not p.is_file()]:
        raise ConfigError(
            f"The ladder has nothing to climb with: found no {', '.join(missing)}; expected what "
            "stages mine, label and train leave. Run python -m export build with this --work."
        )
    drawn = json.loads(plan_file.read_text(encoding="utf-8"))["reranker"]
    zero_shot = json.loads(quality_file.read_text(encoding="utf-8"))["zero_shot"]
    by_name = {(task, u.user): u for task, users in shop.users.items() for u in users}
    pools = read_pools(pools_file)
    places = [(task, name) for task in sorted(drawn) for name in drawn[task]]
    if missing := sorted({*places, *((p.task, p.user) for p in pools)} - set(by_name)):
        raise ConfigError(
            f"The build had user {missing[0][1]} ({missing[0][0]}), who is not in the data; "
            "expected the histories it was made from. Give the same --data."
        )
    records = [by_name[place] for place in places]
    closed = closed_users(shop, pools, size)
    shares = {task: zero_shot[task]["share"] for task in drawn if task in zero_shot}
    return Climb(shop, records, Answers(pools, by_name, closed, size.closed_queries, shares))


def closed_users(shop: Workshop, pools: Sequence[PoolLabel], size: Size) -> list[UserHistory]:
    """Draw users of closed sets, of every task that was answered without free text."""
    out = []
    for task in sorted({p.task for p in pools}):
        users = shop.users[task]
        if users[0].full_spec.kind != "text":
            out += sample_users(users, size.closed_users, least=LEAST_RECORDS, seed=size.seed)
    return out


def run(
    files: Sequence[Path],
    work: Path,
    size: Size,
    report: Progress,
    *,
    tune: bool,
    source: Path | None = None,
    max_tokens: int = 128,
) -> JsonDict:
    """Climb the ladder with what a build has left in ``work``; see ``climb`` and ``climb_tuned``.

    Parameters
    ----------
    tune
        Whether to train the encoder too; minutes on one core.
    source
        The model the encoder was made from; None is the installed one.

    Raises
    ------
    ConfigError
        If the build has not been run so far.
    """  # fmt: skip
    settings = Settings(
        tuple(files), work, work, work, Plan(), source=source, max_tokens=max_tokens, replay=True
    )
    with tempfile.TemporaryDirectory() as scratch:
        material = gather(Workshop(settings, Path(scratch)), size)
        recipe = Recipe()
        figures: JsonDict = {
            "size": asdict(size),
            "recipe": {name: getattr(recipe, name) for name in recipe.__slots__ if name != "k"},
            "profile_components": COMPONENTS,
            "ridge_of_own_in_joint": FREE,
            "trained_on": fingerprint(files),
            "ladder": climb(material, size, report, recipe=recipe),
        }
        if tune:
            from export.encoder import source_folder

            encoder = CutEncoder(source or source_folder(), max_tokens)
            how = Tuning()
            ladder, losses = climb_tuned(material, encoder, size, how, report)
            third = max(1, len(losses) // 3)
            figures["tuned"] = {
                "tuning": asdict(how),
                "steps": len(losses),
                "loss_first_third": round(float(np.mean(losses[:third])), 4),
                "loss_last_third": round(float(np.mean(losses[-third:])), 4),
                "ladder": ladder,
            }
    return figures


def climb(material: Climb, size: Size, report: Progress, *, recipe: Recipe) -> JsonDict:
    """Climb every rung in every fold, for both roles.

    Returns
    -------
    JsonDict
        Figures by material (reranker, adapter, closed sets without an LLM), group and rung.
    """
    rungs = rungs_of(size.dims)
    stand = _Stand(material, material.shop.encoder, recipe, size.seed, report)
    records = stand.records(material.records, size)
    known = stand.profiles()
    folds = split_people(material, size)
    judged: dict[str, list[Judged]] = {}
    for i, inside in enumerate(folds, start=1):
        stage = f"fold {i} of {len(folds)}"
        for fold in stand.folds(records, known, inside, stage):
            for name, users in fold.climb(rungs).items():
                judged.setdefault(name, []).extend(users)
    return summarize(judged, rungs, seed=size.seed)


def split_people(material: Climb, size: Size) -> list[frozenset[str]]:
    """Split everyone who has a query into folds; both roles share them."""
    names = [u.user for u in material.records] + [user for _, user in material.answers.queries]
    return split(names, size.folds, size.seed)


def climb_tuned(
    material: Climb, encoder: CutEncoder, size: Size, how: Tuning, report: Progress
) -> tuple[JsonDict, list[float]]:
    """Compare the encoder before and after its last layer was trained, on the first fold.

    Both are float32, and both are stood on by the lowest rung, fitted anew: with other vectors
    every feature is another. Only users drawn for it take part, outside and left out.

    Returns
    -------
    tuple of JsonDict and list
        Figures as ``climb`` gives them, and the loss of each step.
    """
    inside = split_people(material, size)[0]
    some = few_users(material, inside, size)
    encoder.keep(texts_of(some), progress=report)
    learners = [(u, u.full_spec) for u in some.records if u.user not in inside]
    before = encoder.snapshot("before")
    losses = tune_encoder(encoder, learners, how, seed=size.seed, progress=report)
    judged: dict[str, list[Judged]] = {}
    rungs = [replace(LOWEST, name=ENCODERS[0]), Rung(ENCODERS[1], 0, "plain", ENCODERS[0])]
    for rung, vectors in zip(rungs, (before, encoder.snapshot("after")), strict=True):
        stand = _Stand(some, vectors, Recipe(), size.seed, report)
        records = stand.records(some.records, size)
        for fold in stand.folds(records, stand.profiles(), inside, rung.name):
            judged.setdefault(rung.name, []).extend(fold.judge(LOWEST))
    return summarize(judged, rungs, seed=size.seed), losses


def few_users(material: Climb, inside: frozenset[str], size: Size) -> Climb:
    """Draw of each task the users an encoder is trained on and those it is judged on."""
    drawn: list[UserHistory] = []
    for task in sorted({u.task for u in material.records}):
        of_task = [u for u in material.records if u.task == task]
        for left, n in ((False, size.tuned_users), (True, size.tuned_left)):
            able = [u for u in of_task if (u.user in inside) == left]
            drawn += sample_users(able, n, least=0, seed=size.seed)
    places = {(u.task, u.user) for u in drawn}
    old = material.answers
    answers = replace(
        old,
        pools=[p for p in old.pools if (p.task, p.user) in places],
        closed=[u for u in drawn if u.task in {c.task for c in old.closed}],
    )
    return Climb(material.shop, drawn, answers)


def texts_of(material: Climb) -> set[str]:
    """Return every text that features of this material may ask a vector of."""
    users = [*material.records, *material.answers.closed]
    answers = [c for p in material.answers.pools for c in (*p.completions, *p.plain)]
    labels = {label for u in users for label in u.full_spec.labels}
    of_records = {text for u in users for r in u.records for text in (r.input, r.output)}
    return of_records | {c.text.strip() for c in answers} | labels


@dataclass(frozen=True, eq=False)
class _Stand:
    """Material as one encoder sees it."""

    material: Climb
    encoder: TextEncoder
    recipe: Recipe
    seed: int
    report: Progress

    def records(self, users: Sequence[UserHistory], size: Size) -> list[Person]:
        neutral = self.material.shop.neutral
        return reranker_people(users, neutral, self.encoder, size.reranker_queries, self.report)

    def profiles(self) -> Profiles:
        neutral = self.material.shop.neutral
        return profiles_of(self.material.answers, neutral, self.encoder, self.report)

    def folds(
        self, records: Sequence[Person], known: Profiles, inside: frozenset[str], stage: str
    ) -> tuple[Fold, Fold]:
        """Leave users out of both roles; the adapter's rests on the reranker's."""
        first = Fold.of(
            Material("reranker", records), inside, RERANKER_TRIAL, self.recipe,
            seed=self.seed, report=self.report, stage=stage,
        )  # fmt: skip
        base = with_reranker(self.material.shop.neutral, first)
        answers = self.material.answers
        people, closed = adapter_people(answers, base, self.encoder, known, self.report)
        second = Fold.of(
            Material("adapter", people, closed), inside, ADAPTER_TRIAL, self.recipe,
            seed=self.seed, report=self.report, stage=stage,
        )  # fmt: skip
        return first, second


def with_reranker(neutral: Bundle, fold: Fold) -> Bundle:
    """Return a base whose reranker is a fold's lowest rung: it has seen none who is left out."""
    scale = fold.view(0).scale
    arrays: dict[str, Float2d] = {
        "reranker.scale.mean": scale.mean,
        "reranker.scale.std": scale.std,
    }
    for task, mean in fold.shared().items():
        found = Population(mean, np.eye(len(mean)), fold.chosen(task).tau, np.zeros((2, 3)), {})
        made = prior_arrays("reranker", task, found)
        arrays |= {name: array for name, array in made.items() if ".gain." not in name}
    return with_maps(neutral, arrays)
