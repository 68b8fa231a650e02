"""What the stages of a build share: its settings, the users, the encoder, the bases so far.

Owns where a stage's outputs are found. Each thing is made when it is first asked for, at most
once, and only from the outputs of stages that come before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from export.cache import CachedLLM, answers_file, open_cached
from export.data import UserHistory, by_task, read_users, sha256_of, with_specs
from export.mine import Plan
from export.pack import CARD_FILE, Card, load_maps, neutral_maps, pack
from export.priors import with_maps
from export.vectors import RememberingEncoder, encoder_key
from hydra_edge.bundle import Bundle
from hydra_edge.bundle.manifest import ENCODER_FILE, TOKENIZER_FILE
from hydra_edge.encoder import Encoder
from hydra_edge.features import feature_names
from hydra_edge.types import JsonDict, Role, text_hash

if TYPE_CHECKING:
    from export.parity import Limit

ROLES: tuple[Role, ...] = get_args(Role)
RERANKER_FILE, PLAN_FILE = "reranker.safetensors", "plan.json"
# Not of a stage: memories.
_VECTORS_FILE, _FLOAT_VECTORS_FILE = "vectors.npz", "vectors-float32.npz"


def read_json(path: Path) -> JsonDict:
    """Read a JSON object that a stage left."""
    found: JsonDict = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_json(path: Path, value: JsonDict) -> None:
    """Write a JSON object as a stage's output; equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Settings:
    """What is built, from what, and where.

    ``source`` None is the installed encoder; ``limits`` None are those of ``export.parity``,
    ``agreement`` None those of ``export.agreement``; ``threads`` are the LLM's. With ``replay``
    no LLM is opened.
    """

    files: tuple[Path, ...]
    out: Path
    work: Path
    answers: Path
    plan: Plan
    source: Path | None = None
    max_tokens: int = 128
    limits: tuple[Limit, ...] | None = None
    agreement: tuple[Limit, ...] | None = None
    replay: bool = False
    threads: int = 0


class Workshop:
    """A build's settings and what is made from them; ``scratch`` is a folder that is dropped."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self.settings = settings
        self.scratch = scratch

    def at(self, stage: str, name: str) -> Path:
        """Return where a stage's output is."""
        return self.settings.work / stage / name

    @cached_property
    def everyone(self) -> dict[str, list[UserHistory]]:
        """All users of the training files, by task."""
        return with_specs(by_task(read_users(self.settings.files)))

    @cached_property
    def users(self) -> dict[str, list[UserHistory]]:
        """Those of them who have a past, by task."""
        least = self.settings.plan.least_records
        return by_task([u for of in self.everyone.values() for u in of if len(u.records) >= least])

    @cached_property
    def neutral(self) -> Bundle:
        """The encoder as a base that knows nothing of people; made once stage onnx is there."""
        features: dict[Role, tuple[str, ...]] = {r: feature_names(r) for r in ROLES}
        return pack(
            self.scratch / "neutral",
            encoder=self.at("onnx", ENCODER_FILE),
            tokenizer=self.at("onnx", TOKENIZER_FILE),
            card=Card.load(self.at("onnx", CARD_FILE)),
            maps=neutral_maps(features),
            features=features,
        )

    @cached_property
    def encoder(self) -> RememberingEncoder:
        """One encoder for all stages: a text is embedded once."""
        path = self.settings.work / _VECTORS_FILE
        return RememberingEncoder(Encoder(self.neutral), path, key=encoder_key(self.neutral))

    @cached_property
    def float_encoder(self) -> RememberingEncoder:
        """The model itself, before it is int8, with a memory of its own."""
        from export.agreement import FloatEncoder
        from export.encoder import source_folder
        from export.parity import TorchEncoder

        source, max_tokens = self.settings.source or source_folder(), self.settings.max_tokens
        model = FloatEncoder(TorchEncoder(source, max_tokens), self.neutral)
        marks = [sha256_of(path) for path in sorted(source.iterdir()) if path.is_file()]
        key = text_hash("\x1f".join((*marks, str(max_tokens))))
        return RememberingEncoder(model, self.settings.work / _FLOAT_VECTORS_FILE, key=key)

    def first_base(self) -> Bundle:
        """Return the base whose reranker needs no LLM: it chooses what LLMs are shown."""
        return with_maps(self.neutral, load_maps(self.at("mine", RERANKER_FILE)))

    def open_llm(self, spec: str, replay: bool) -> CachedLLM:
        """Open an LLM behind its answers; to replay, the answers alone."""
        settings = self.settings
        path = answers_file(settings.answers, spec)
        return open_cached(spec, path, replay=replay, threads=settings.threads)
