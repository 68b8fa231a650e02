"""From data to the bundle that is shipped: six stages, each made once.

``onnx`` turns the encoder's weights into the int8 graph and checks it; ``mine`` chooses whom and
what to ask, with a reranker that needs no LLM; ``label`` asks real LLMs; ``train`` learns maps
and priors from their answers; ``agree`` checks that with them int8 still chooses as the model
itself would; ``pack`` puts all into a bundle. Owns how the stages hang together; what each does
is in a module of its own. Deterministic given the data, the answers that are kept, and the seed, on
one kind of processor with one number of threads: sums are rounded otherwise on another.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from export.asking import POOLS_FILE, RECORDS_FILE, REPORT_FILE, Asking
from export.cache import CachedLLM
from export.data import UserHistory, by_task, fingerprint, has_private, numbered, sha256_of
from export.label import check_known
from export.labels import PoolLabel, read_pools
from export.mine import as_float32, mine_reranker, stated_names, stated_plan, write_plan
from export.pack import CARD_FILE, Card, load_maps, pack, refuse_other
from export.stages import INPUTS_FILE, Say, Stage, run_stages
from export.workshop import (
    PLAN_FILE,
    RERANKER_FILE,
    ROLES,
    Settings,
    Workshop,
    read_json,
    write_json,
)
from hydra_edge.bundle import Bundle, load_bundle
from hydra_edge.bundle.manifest import ENCODER_FILE, MANIFEST_FILE, MAPS_FILE, TOKENIZER_FILE
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import BundleError, HydraError
from hydra_edge.features import FEATURE_VERSION, feature_names
from hydra_edge.types import Float2d, JsonDict, Progress, Role, text_hash

if TYPE_CHECKING:
    from export.parity import Limit

FEATURES_FILE, QUALITY_FILE = "features.json", "quality.json"
CLOSED_FILE = "closed_sets.json"
AGREEMENT_FILE, SAMPLE_FILE = "agreement.json", "sample.json"
_BUNDLE = "bundle"  # the folder of the bundle within stage pack's own


class TrainedMaps(Protocol):
    """What training gives: arrays for ``maps.safetensors``, their features, their worth."""

    @property
    def arrays(self) -> Mapping[str, Float2d]:
        """Named arrays, float32."""
        ...

    @property
    def features(self) -> Mapping[Role, tuple[str, ...]]:
        """The names of each role's features, in the order of the arrays."""
        ...

    @property
    def quality(self) -> JsonDict:
        """Figures for the manifest."""
        ...

    @property
    def closed_sets(self) -> Mapping[str, Sequence[str]]:
        """The answers of each closed set there is a classifier for."""
        ...


class Train(Protocol):
    """Training of maps and priors (``export.train.train_maps``)."""

    def __call__(
        self,
        *,
        bundle: Bundle,
        encoder: TextEncoder,
        users_by_task: dict[str, list[UserHistory]],
        everyone: dict[str, list[UserHistory]],
        pools: Sequence[PoolLabel],
        seed: int,
        report: Progress,
    ) -> TrainedMaps:
        """Train on all users of the training files and on the pools that were answered."""
        ...


def build(
    settings: Settings,
    *,
    progress: Progress,
    say: Say,
    only: Sequence[str] = (),
    open_llm: Callable[[str, bool], CachedLLM] | None = None,
    train: Train | None = None,
) -> list[str]:
    """Make a bundle, running only the stages that have to run.

    Parameters
    ----------
    only
        Run no other stages; the bundle is put in its place only if ``pack`` is among them.
    open_llm
        Opens an LLM and the cache of its answers; by default those in ``settings.answers``.
        It is told the LLM's spec, and whether to open the answers alone.
    train
        By default ``export.train.train_maps``.

    Returns
    -------
    list of str
        The stages that ran.
    """
    refuse_other(settings.out)
    with tempfile.TemporaryDirectory() as scratch:
        made = _Build(Workshop(settings, Path(scratch)), progress, say, open_llm, train)
        packs = not only or "pack" in only
        return run_stages(
            made.stages(), settings.work, only=only, say=say,
            deliver=made.deliver if packs else None,
        )  # fmt: skip


class _Build:
    """The stages of one build."""

    def __init__(
        self,
        shop: Workshop,
        progress: Progress,
        say: Say,
        open_llm: Callable[[str, bool], CachedLLM] | None,
        train: Train | None,
    ) -> None:
        self.shop = shop
        self.settings = shop.settings
        self.progress = progress
        self.say = say
        self.asking = Asking(shop, open_llm or shop.open_llm, progress, say)
        self.train = train

    def stages(self) -> list[Stage]:
        """Return the stages in order."""
        settings, plan = self.settings, self.settings.plan
        names: JsonDict = {role: list(feature_names(role)) for role in ROLES}
        version: JsonDict = {"feature_version": FEATURE_VERSION}
        # Earlier releases have not left private lines out: what they made of such is made again.
        private: JsonDict = {"private": "left out"} if has_private(settings.files) else {}
        read = {**version, **private}
        limits = _bounds(settings.limits or ())
        # Of a local model only its file's name is stated; a hash tells that it has moved.
        names_of = stated_names(llm.name for llm in plan.llms)
        moved = [text_hash(spec) for spec, own in names_of.items() if own != spec]
        asked: JsonDict = {"plan": stated_plan(plan.as_json())}
        asked |= {"llm_files": moved} if moved else {}
        return [
            Stage(
                "onnx", self._onnx, (ENCODER_FILE, TOKENIZER_FILE, CARD_FILE), self._model_files,
                parameters={"max_tokens": settings.max_tokens, "limits": limits, **private},
                version=2,
            ),
            Stage(
                "mine", self._mine, (RERANKER_FILE, PLAN_FILE), self._data_files, ("onnx",),
                parameters={**asked, "features": names["reranker"], **read},
                version=2,
            ),
            Stage(
                "label", self.asking.run, (POOLS_FILE, RECORDS_FILE, REPORT_FILE),
                self._data_files, ("onnx", "mine"), read, version=2,
                grown=self.asking.answers, open_ends=self.asking.unanswered,
            ),
            Stage(
                "train", self._train, (MAPS_FILE, FEATURES_FILE, CLOSED_FILE, QUALITY_FILE),
                self._data_files,
                ("onnx", "mine", "label"), {"seed": plan.seed, "features": names, **read},
                version=5,
            ),
            Stage(
                "agree", self._agree, (AGREEMENT_FILE, SAMPLE_FILE), self._model_files,
                ("onnx", "label", "train"),
                {"seed": plan.seed, "limits": _bounds(settings.agreement or ()), **read},
                version=2,
            ),
            Stage(
                "pack", self._pack,
                tuple(f"{_BUNDLE}/{name}" for name in
                      (MANIFEST_FILE, ENCODER_FILE, TOKENIZER_FILE, MAPS_FILE)),
                after=("onnx", "train", "agree"), parameters=version,
            ),
        ]  # fmt: skip

    def deliver(self) -> None:
        """Put the bundle of stage pack where it is wanted, unless it is there already.

        Raises
        ------
        BundleError
            If what stage agree passed is not what would be packed.
        """
        self._require_agreement()
        out, made = self.settings.out, self.shop.at("pack", _BUNDLE)
        try:
            there = load_bundle(out) if out.exists() else None
        except BundleError:
            there = None  # damaged: replaced
        manifest = (made / MANIFEST_FILE).read_bytes()
        if there is not None and (out / MANIFEST_FILE).read_bytes() == manifest:
            self.say(f"{out} is up to date: base {there.base_id[:12]}")
            return
        bundle = self._pack_into(out, self._card())
        for line in self._learned():
            self.say(line)
        self.say(f"{out} is written: base {bundle.base_id[:12]}")

    def _learned(self) -> Iterator[str]:
        """Say of each task what its shared head was worth to users left out, or that it has none.

        A stand-in for training may state no figures.
        """
        figures = read_json(self.shop.at("train", QUALITY_FILE)).get("adapter", {})
        tasks = sorted(read_json(self.shop.at("mine", PLAN_FILE))["reranker"])
        gained = set()
        for task in tasks:
            if not (of := figures.get(task)):
                continue
            worth, users = of["utility"], of["users"]
            yield (
                f"{task}: utility {worth['baseline']:.4f} -> {worth['shared']:.4f}, {users:,} "
                "users left out"
            )
            if worth["shared"] > worth["baseline"]:
                gained.add(task)
        if nothing := [task for task in tasks if task not in gained]:
            yield f"nothing was learned for: {', '.join(nothing)}"

    def _data_files(self) -> Sequence[Path]:
        return self.settings.files

    def _model_files(self) -> Sequence[Path]:
        if importlib.util.find_spec("onnx") is None:
            raise HydraError(
                "Stages onnx and agree cannot run: package onnx is not installed; expected the "
                "export extra. Run pip install '.[export]' in a clone, or leave them out with "
                "--only."
            )
        from export.encoder import source_folder

        source = self.settings.source or source_folder()
        weights = sorted(path for path in source.iterdir() if path.is_file())
        return [*self.settings.files, *weights]

    def _onnx(self, folder: Path) -> None:
        from export.graph import make_encoder

        settings = self.settings
        make_encoder(
            settings.files, folder, source=settings.source, max_tokens=settings.max_tokens,
            within=settings.limits, progress=self.progress,
        )  # fmt: skip

    def _mine(self, folder: Path) -> None:
        import safetensors.numpy

        plan = self.settings.plan
        made = mine_reranker(
            self.shop.users, self.shop.neutral, self.shop.encoder, plan, self.progress
        )
        self.shop.encoder.save()
        safetensors.numpy.save_file(as_float32(made.arrays), folder / RERANKER_FILE)
        write_plan(folder / PLAN_FILE, self.shop.users, plan)
        write_json(folder / QUALITY_FILE, made.quality)

    def _train(self, folder: Path) -> None:
        import safetensors.numpy

        settings, train = self.settings, self.train or _default_train()
        pools = read_pools(self.shop.at("label", POOLS_FILE))
        check_known(pools, self.shop.users)
        made = train(
            bundle=self.shop.first_base(),
            encoder=self.shop.encoder,
            users_by_task=self.shop.users,
            everyone=self.shop.everyone,
            pools=pools,
            seed=settings.plan.seed,
            report=self.progress,
        )
        self.shop.encoder.save()
        safetensors.numpy.save_file(as_float32(made.arrays), folder / MAPS_FILE)
        write_json(folder / FEATURES_FILE, {role: list(made.features[role]) for role in ROLES})
        write_json(folder / CLOSED_FILE, {task: list(a) for task, a in made.closed_sets.items()})
        write_json(folder / QUALITY_FILE, {**made.quality, **self._origin()})

    def _origin(self) -> JsonDict:
        """State what training rests on: what earlier stages did, whatever they are told now."""
        plan = read_json(self.shop.at("mine", PLAN_FILE))["plan"]
        report = read_json(self.shop.at("label", REPORT_FILE))
        names, seed = stated_names(report), self.settings.plan.seed
        return {
            "llms": {
                names[spec]: {**of, "name": names.get(of["name"], of["name"])}
                for spec, of in report.items()
            },
            "plan": stated_plan(plan),
            "trained_on": self._trained_on(),
            **({} if seed == plan["seed"] else {"training_seed": seed}),
        }

    def _trained_on(self) -> JsonDict:
        """Fingerprint the files of this stage, and those that earlier ones were given instead."""
        marks = fingerprint(self.settings.files)
        for stage in ("mine", "label"):
            for file in read_json(self.shop.at(stage, INPUTS_FILE))["files"]:
                if (mark := file["sha256"][:16]) not in marks.values():
                    marks[numbered(file["name"], marks)] = mark
        return dict(marks)

    def _agree(self, folder: Path) -> None:
        from export.agreement import LIMITS, check_agreement, compare, draw_sample
        from export.parity import limits

        settings, shop = self.settings, self.shop
        within, seed = settings.agreement or LIMITS, settings.plan.seed
        pools = read_pools(shop.at("label", POOLS_FILE))
        check_known(pools, shop.users)
        sample = draw_sample(shop.users, pools, seed=seed)
        trained = self._pack_into(shop.scratch / "trained", Card.load(shop.at("onnx", CARD_FILE)))
        figures = compare(trained, shop.float_encoder, shop.encoder, sample, progress=self.progress)
        shop.float_encoder.save()
        shop.encoder.save()
        check_agreement(figures, within)
        stated = {"seed": seed, **figures, "limits": limits(within)}
        write_json(folder / AGREEMENT_FILE, stated)
        drawn = by_task([one.user for one in sample])
        write_json(folder / SAMPLE_FILE, {t: [u.user for u in of] for t, of in drawn.items()})

    def _require_agreement(self) -> None:
        """Refuse to pack what has been made anew since stage agree compared it."""
        compared = read_json(self.shop.at("agree", INPUTS_FILE))["stages"]
        other = [
            stage
            for stage, outputs in compared.items()
            if any(sha256_of(self.shop.at(stage, name)) != mark for name, mark in outputs.items())
        ]
        if other:
            raise BundleError(
                f"Nothing was packed: stage agree compared other outputs of {' and '.join(other)} "
                "than there are now, or refused these; expected a base that it has passed. Run it "
                "again: --only agree,pack."
            )

    def _pack(self, folder: Path) -> None:
        self._require_agreement()
        self._pack_into(folder / _BUNDLE, self._card())

    def _card(self) -> Card:
        """Return all that is stated of the encoder: also how it chooses with what was trained."""
        card = Card.load(self.shop.at("onnx", CARD_FILE))
        agreement = read_json(self.shop.at("agree", AGREEMENT_FILE))
        return replace(card, parity={**card.parity, "agreement": agreement})

    def _pack_into(self, out: Path, card: Card) -> Bundle:
        stated = read_json(self.shop.at("train", FEATURES_FILE))
        return pack(
            out,
            encoder=self.shop.at("onnx", ENCODER_FILE),
            tokenizer=self.shop.at("onnx", TOKENIZER_FILE),
            card=card,
            maps=load_maps(self.shop.at("train", MAPS_FILE)),
            features={role: tuple(stated[role]) for role in ROLES},
            closed_sets=read_json(self.shop.at("train", CLOSED_FILE)),
            quality=read_json(self.shop.at("train", QUALITY_FILE)),
        )


def _default_train() -> Train:
    from export.train import train_maps  # late: it needs torch

    default: Train = train_maps
    return default


def _bounds(limits: Sequence[Limit]) -> list[list[str | float]]:
    return [[limit.figure, limit.low, limit.high] for limit in limits]
