"""Three people and a query each, whose raw features are kept in ``tests/golden/features.npz``.

Vectors are made of hashed words and nothing of the base is used, so that the features depend on
their code alone. ``PYTHONPATH=tests:tests/unit python tests/unit/feature_scenes.py`` writes the
file anew: for a release that raises ``FEATURE_VERSION``, and whose base was built with it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from conftest import HashEncoder

from hydra_edge.features import Pool, adapter_features, draw_in, reranker_features
from hydra_edge.history import History
from hydra_edge.retrieval import Shortlist
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Candidate, Float2d, Record

GOLDEN = Path(__file__).parents[1] / "golden" / "features.npz"

_RECORDS, _SHOWN = 60, 4
_TOPICS = ("parser", "speech", "vision", "search", "memory", "planning")
_WORDS = (
    *_TOPICS, "a", "the", "of", "for", "with", "small", "large", "fast", "study", "model", "text",
    "data", "long", "new",
)  # fmt: skip
_TASKS = ("paper_title", "news_category", "film_rating")


def features() -> dict[str, Float2d]:
    """Compute the raw features of all scenes: name -> shape ``(m, d)``."""
    return dict(_all())


def _all() -> Iterator[tuple[str, Float2d]]:
    for seed, name in enumerate(_TASKS):
        draw = random.Random(seed)
        task, encoder = BUILTIN[name], HashEncoder(dim=48)

        def text(n: int, draw: random.Random = draw) -> str:
            return " ".join(draw.choice(_WORDS) for _ in range(n))

        def answer(draw: random.Random = draw, task=task, text=text) -> str:
            if task.labels:
                return draw.choice(task.labels[:5])
            return draw.choice(("{}", "{}: {}", "{}, {}")).format(
                text(draw.randint(2, 6)).title(), text(2)
            )

        records = [
            Record(text(draw.randint(4, 20)), answer(), name, id=f"r{i}", time=float(i))
            for i in range(_RECORDS)
        ]
        # Some are there twice, or nearly so.
        records += [
            Record(records[i].input + more, records[i].output, name, id=f"again{i}", time=99.0 + i)
            for i, more in ((3, ""), (7, " data"), (11, " text"))
        ]
        inputs = encoder.encode([r.input for r in records])
        history = History.build(task, records, inputs, encoder.encode([r.output for r in records]))
        query = f"{text(10)} {_TOPICS[seed]}"
        vector = encoder.encode([query])[0]
        cosine = inputs @ vector
        bm25 = np.array([len({*r.input.split()} & {*query.split()}) for r in records], np.float32)
        everything = Shortlist(np.arange(len(records)), bm25, bm25 / (bm25.max() + 1), cosine)
        helped = {"r1": (3, 2), "r5": (2, 0), "again3": (1, 1)}
        yield f"{name}/reranker", reranker_features(vector, history, everything, helped)

        nearest = np.argsort(-cosine, kind="stable")
        shown = tuple(records[i] for i in nearest[:_SHOWN])
        said = list(task.labels) or [answer() for _ in range(6)]
        if not task.labels:  # words of the query, of what is shown, and of both
            words = query.split()
            said += [" ".join(words[:4]), f"{shown[0].output} {words[0]}"]
        candidates = tuple(
            Candidate(
                one, count=i % 4, greedy=i == 1, logprob=None if i == 2 else -0.3 * (i + 1),
                zero_shot=i % 3 == 0, finish="length" if i == 4 else "stop",
            )
            for i, one in enumerate(said)
        )  # fmt: skip
        pool = Pool(
            query, vector, candidates, encoder.encode(said), shown,
            encoder.encode([r.output for r in shown]), nearest[:5].copy(),
            np.array([0.4, 0.3, 0.1, 0.1, 0.1], dtype=np.float32),
        )  # fmt: skip
        raw = adapter_features(pool, history)
        yield f"{name}/adapter", raw
        if task.kind == "text":
            yield f"{name}/adapter, drawn in", draw_in(raw, 6, 20.0)


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **features())
