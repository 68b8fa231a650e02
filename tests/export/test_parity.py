from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
from export.data import UserHistory
from export.encoder import provenance, source_folder
from export.parity import (
    LIMITS,
    calibration_texts,
    check,
    dense_weights,
    limits,
    measure,
    parity_histories,
    rank_agreement,
)
from hydra_edge.bundle import default_bundle_path
from hydra_edge.errors import BundleError
from hydra_edge.types import Record

pytestmark = pytest.mark.export


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def good() -> dict[str, float]:
    return {limit.figure: (limit.low + limit.high) / 2 for limit in LIMITS}


def test_check_passes_figures_within_their_limits() -> None:
    check(good())


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.figure)
@pytest.mark.parametrize("side", ["below", "above", "nan"])
def test_check_names_the_figure_that_is_missed(limit, side: str) -> None:
    values = {"below": limit.low - 0.01, "above": limit.high + 0.01, "nan": float("nan")}
    with pytest.raises(BundleError, match=f"Parity is missed: {limit.figure} = .*{limit.why}"):
        check({**good(), limit.figure: values[side]})


def test_shipped_bundle_was_gated_on_the_limits_in_force(bundle) -> None:
    assert bundle.manifest.parity["limits"] == limits()


def test_histories_whose_order_tells_nothing_are_refused_before_anything_is_encoded() -> None:
    records = tuple(Record(f"of sort {i % 4}", f"answer {i}", "desk") for i in range(20))
    encoder = object()
    with pytest.raises(BundleError, match="got 4 different inputs of a user at most; expected 6"):
        measure(encoder, encoder, encoder, [UserHistory("u", "desk", records)])


def test_rank_agreement_of_equal_vectors_is_one() -> None:
    rows = unit(np.random.default_rng(0).standard_normal((20, 8)))
    same = rank_agreement(rows, rows)
    assert same.spearman == pytest.approx(1)
    assert same.kendall == pytest.approx(1)
    assert same.top_overlap == 1


def test_rank_agreement_of_unrelated_vectors_is_near_chance() -> None:
    rng = np.random.default_rng(0)
    first, second = (unit(rng.standard_normal((40, 8))) for _ in range(2))
    chance = rank_agreement(first, second)
    assert abs(chance.spearman) < 0.1
    assert chance.top_overlap < 0.25  # 4 of 39 by chance


def test_dense_weights_finds_every_product_of_the_shipped_graph() -> None:
    weights = dense_weights(default_bundle_path() / "encoder.onnx")
    assert len(weights) == 24
    assert max(weights.values()) <= 64


def test_calibration_looks_at_other_users_than_parity(tmp_path: Path) -> None:
    path = tmp_path / "notes.train.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for user in range(14):
            for seq in range(15):
                line = {
                    "user": f"u{user}", "id": f"{user}-{seq}", "seq": seq, "time": None,
                    "task": "general", "input": f"in {user} {seq}", "output": f"out {user}",
                }  # fmt: skip
                stream.write(json.dumps(line) + "\n")
    histories = parity_histories([path])
    assert len(histories) == 10
    texts = calibration_texts([path], besides=histories)
    measured = {record.input for user in histories for record in user.records}
    assert texts[0] == ""
    assert len(texts) > 1
    assert not measured & set(texts)


def test_calibration_of_few_users_looks_at_them_rather_than_at_nothing(tmp_path: Path) -> None:
    rows = [
        {"user": f"u{i}", "id": f"{i}-{j}", "seq": j, "time": None, "task": "paper_title",
         "input": f"text {i} {j}", "output": "title"}
        for i in range(3) for j in range(12)
    ]  # fmt: skip
    path = tmp_path / "a.train.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    measured = parity_histories([path])
    assert len(measured) == 3, "nobody else is there"
    assert "text 0 11" in calibration_texts([path], besides=measured)


def test_source_that_is_not_the_installed_model_is_stated_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "model.safetensors").write_bytes(b"weights")
    stated = provenance(tmp_path / "theirs")
    assert (stated["model"], stated["license"]) == ("theirs", "not stated")
    assert "package" not in stated
    installed = provenance(source_folder())
    assert installed["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert installed["license"] == "Apache-2.0"


def test_parity_without_histories_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(BundleError, match="expected real histories"):
        parity_histories([tmp_path / "a.jsonl"])
