"""The rewrites of a graph, on a graph of two products that is small enough to reason about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

from export.encoder import _quantize
from export.fuse import FUSED
from export.quantize import (
    even_out,
    find_peaks,
    fix_scales,
    scale_rows,
)
from hydra_edge.bundle import default_bundle_path
from hydra_edge.encoder import import_onnxruntime
from hydra_edge.errors import BundleError

pytestmark = pytest.mark.export

WIDTH, INNER = 16, 32


def small_graph(seed: int = 0) -> onnx.ModelProto:
    """Build norm -> product -> Gelu -> product, after an embedding; one channel dwarfs the rest."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((50, WIDTH)).astype(np.float32)
    gain = np.ones(WIDTH, np.float32)
    gain[3] = 30
    tensors = {
        "table": table, "gain": gain, "shift": np.zeros(WIDTH, np.float32),
        "up": rng.standard_normal((WIDTH, INNER)).astype(np.float32) / 4,
        "down": rng.standard_normal((INNER, WIDTH)).astype(np.float32) / 4,
    }  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"], "embed"),
        helper.make_node("LayerNormalization", ["embedded", "gain", "shift"], ["normed"], "norm"),
        helper.make_node("MatMul", ["normed", "up"], ["wide"], "first"),
        helper.make_node("Gelu", ["wide"], ["bent"], "gelu"),
        helper.make_node("MatMul", ["bent", "down"], ["last_hidden_state"], "second"),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["n", "t", WIDTH])
    graph = helper.make_graph(
        nodes, "small", ids, [out],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = {entry.name for entry in session.get_inputs()}
    feed = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ids)
    return session.run(None, {name: feed[name] for name in names})[0]


def peaks_of(model: onnx.ModelProto, folder: Path) -> dict[str, np.ndarray]:
    onnx.save(model, folder / "float.onnx")
    return find_peaks(folder / "float.onnx", IDS.tolist(), progress=lambda *_: None)


def quantized(folder: Path) -> onnx.ModelProto:
    model = scale_rows(even_out(small_graph(), peaks_of(small_graph(), folder)))
    scaled = folder / "scaled"
    scaled.mkdir()
    onnx.save(model, scaled / "model.onnx")
    (scaled / "config.json").write_text('{"model_type": "bert"}')
    return fix_scales(onnx.load(_quantize(scaled, folder / "int8")))


IDS = np.random.default_rng(1).integers(0, 50, (4, 6))


def test_find_peaks_sees_the_channel_that_dwarfs_the_rest(tmp_path: Path) -> None:
    peaks = peaks_of(small_graph(), tmp_path)
    assert list(peaks) == ["normed"]
    assert peaks["normed"].argmax() == 3
    assert peaks["normed"][3] > 5 * np.median(peaks["normed"])


def test_even_out_changes_no_result_and_evens_channels(tmp_path: Path) -> None:
    model = small_graph()
    even = even_out(model, peaks_of(model, tmp_path))
    np.testing.assert_allclose(run(even, IDS), run(model, IDS), rtol=1e-4, atol=1e-4)
    inverse = next(t for t in even.graph.initializer if t.name == "normed_inverse")
    assert numpy_helper.to_array(inverse).argmin() == 3


def test_scale_rows_changes_no_result() -> None:
    model = small_graph()
    np.testing.assert_allclose(run(scale_rows(model), IDS), run(model, IDS), rtol=1e-4, atol=1e-4)


def test_scale_rows_leaves_the_given_graph_alone() -> None:
    model = small_graph()
    before = model.SerializeToString(deterministic=True)
    scale_rows(model)
    assert model.SerializeToString(deterministic=True) == before


def test_scale_rows_survives_a_row_of_zeros() -> None:
    model = small_graph()
    table = next(t for t in model.graph.initializer if t.name == "table")
    table.CopyFrom(numpy_helper.from_array(np.zeros((50, WIDTH), np.float32), "table"))
    np.testing.assert_array_equal(run(scale_rows(model), IDS), 0)


def test_quantized_graph_is_near_the_float_one(tmp_path: Path) -> None:
    expected, found = run(small_graph(), IDS), run(quantized(tmp_path), IDS)
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_quantized_graph_computes_each_text_alone(tmp_path: Path) -> None:
    model = quantized(tmp_path)
    together = run(model, IDS)
    alone = np.concatenate([run(model, row[None]) for row in IDS])
    np.testing.assert_array_equal(together, alone)


def test_fix_scales_refuses_a_product_without_row_scale(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    onnx.save(small_graph(), plain / "model.onnx")
    (plain / "config.json").write_text('{"model_type": "bert"}')
    model = onnx.load(_quantize(plain, tmp_path / "int8"))
    with pytest.raises(BundleError, match="no scale per token"):
        fix_scales(model)


def test_shipped_graph_has_one_operator_of_the_runtimes_own_and_no_saturating_weight() -> None:
    model = onnx.load(default_bundle_path() / "encoder.onnx")
    own = {node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    assert own == {FUSED}
    assert {entry.domain for entry in model.opset_import} <= {"", "ai.onnx", "com.microsoft"}
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == FUSED]
    assert len(products) == 24  # six layers: query, key and value in one, output, up, down
    for node in products:
        weight = numpy_helper.to_array(constants[node.input[1]]).astype(int)
        assert np.abs(weight).max() <= 64, node.name
    table = max(constants.values(), key=lambda tensor: int(np.prod(tensor.dims)))
    assert tuple(table.dims) == (30522, 384)
    assert table.data_type == TensorProto.UINT8
