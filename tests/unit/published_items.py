"""HYDRA as published without torch: an encoder of pairs, a head, and the card of a base."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.published.card import FILES, Card
from export.published.head import Head
from hydra_edge.utility import tokens

DIM = 64


class WordPairs:
    """Encodes a pair as its words, each text's in a half of its own."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def encode(self, pairs: Sequence[tuple[str, str]], *, progress: object = None) -> np.ndarray:
        self.seen += pairs
        out = np.zeros((len(pairs), DIM), dtype=np.float32)
        for row, pair in enumerate(pairs):
            for side, text in enumerate(pair):
                for word in tokens(text):
                    place = hashlib.sha256(word.encode()).digest()[0] % (DIM // 2)
                    out[row, side * DIM // 2 + place] += 1.0
        return out


def mean_head(vectors: np.ndarray, labels: np.ndarray, *, seed: int) -> Head:
    """Fit what separates positives from negatives in the mean: no torch, no randomness."""
    inner = np.eye(DIM, dtype=np.float32) * 0.1
    outer = np.zeros((2, DIM), dtype=np.float32)
    if 0 < labels.sum() < len(labels):
        outer[1] = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
    return Head(inner, np.zeros(DIM, np.float32), outer, np.zeros(2, np.float32))


def card_in(folder: Path, **changes: object) -> Card:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(name)
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
    card = Card("paper_title", 128, "smollm2", 3, {}, {}, {}, {"a.jsonl": "0" * 16}, files)
    card = replace(card, **changes)
    card.save(folder)
    return card
