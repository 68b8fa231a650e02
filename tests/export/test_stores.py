"""Making a base holds people's records in memory only as long as it looks at them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("onnx")
pytest.importorskip("torch")

from progress import quiet

from export.agreement import Sampled, _judged, _rank
from export.data import UserHistory
from export.episodes import closed_episodes
from export.ladder.material import Answers, profiles_of, reranker_people
from export.priors import label_reranker
from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.engine import Engine
from hydra_edge.store import Store
from hydra_edge.types import Record

USER = UserHistory("a", "t", tuple(Record(f"in {i}", "ab"[i % 2], "t", f"r{i}") for i in range(12)))


Reads = Callable[[Bundle, TextEncoder], object]
READERS: dict[str, Reads] = {
    "label_reranker": lambda *base: label_reranker([USER], *base, 3, quiet),
    "closed_episodes": lambda *base: closed_episodes([USER], *base, 3, quiet),
    "reranker_people": lambda *base: reranker_people([USER], *base, 3, quiet),
    "profiles_of": lambda *base: profiles_of(Answers((), {}, [USER], 3, {}), *base, quiet),
    "agreement": lambda *base: _judged(_rank, Sampled(USER, ()), *base),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("broken", [False, True])
def test_reader_of_a_history_closes_it_also_where_it_fails(
    bundle: Bundle, hash_encoder, monkeypatch: pytest.MonkeyPatch, name: str, broken: bool
) -> None:
    opened: list[Store] = []
    closed: list[Store] = []
    in_memory, close = Store.in_memory, Store.close
    monkeypatch.setattr(Store, "in_memory", lambda: opened.append(in_memory()) or opened[-1])
    monkeypatch.setattr(Store, "close", lambda store: closed.append(store) or close(store))
    if broken:
        monkeypatch.setattr(Engine, "history", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            READERS[name](bundle, hash_encoder)
    else:
        READERS[name](bundle, hash_encoder)
    assert len(opened) == 1
    assert closed == opened
