"""Fused graphs: fewer steps, the very same bits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper

from export import fuse as fusing
from export.encoder import _fold, _quantize
from export.fuse import fold_shapes, fuse, fuse_products, merge_products
from export.quantize import fix_scales, scale_rows
from hydra_edge.bundle import default_bundle_path
from hydra_edge.encoder import import_onnxruntime
from hydra_edge.errors import BundleError

pytestmark = pytest.mark.export

WIDTH, HEADS = 16, 4


def attention_like(seed: int = 0) -> onnx.ModelProto:
    """Build three biased products of one norm, put into heads by the input's shape, and summed."""
    rng = np.random.default_rng(seed)
    tensors = {
        "table": rng.standard_normal((80, WIDTH)).astype(np.float32),
        "gain": np.ones(WIDTH, np.float32), "shift": np.zeros(WIDTH, np.float32),
        "zero": np.array(0, np.int64), "one": np.array(1, np.int64),
        "axis": np.array([0], np.int64), "heads": np.array([HEADS], np.int64),
        "rest": np.array([WIDTH // HEADS], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["embedded"], "embed"),
        node("LayerNormalization", ["embedded", "gain", "shift"], ["normed"], "norm"),
        node("Shape", ["normed"], ["shape"], "shape"),
        *(node("Gather", ["shape", at], [f"{name}_size"], f"{name}_size")
          for name, at in (("texts", "zero"), ("tokens", "one"))),
        *(node("Unsqueeze", [f"{name}_size", "axis"], [f"{name}_list"], f"{name}_list")
          for name in ("texts", "tokens")),
        node("Concat", ["texts_list", "tokens_list", "heads", "rest"], ["split"], "split", axis=0),
    ]  # fmt: skip
    for name in ("query", "key", "value"):
        tensors[f"{name}_weight"] = rng.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        tensors[f"{name}_bias"] = rng.standard_normal(WIDTH).astype(np.float32)
        nodes += [
            node("MatMul", ["normed", f"{name}_weight"], [f"{name}_product"], f"{name}_product"),
            node("Add", [f"{name}_bias", f"{name}_product"], [f"{name}_biased"], f"{name}_biased"),
            node("Reshape", [f"{name}_biased", "split"], [f"{name}_heads"], f"{name}_heads"),
        ]
    nodes += [
        node("Mul", ["query_heads", "key_heads"], ["both"], "both"),
        node("Add", ["both", "value_heads"], ["last_hidden_state"], "sum"),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    out = helper.make_tensor_value_info(
        "last_hidden_state", TensorProto.FLOAT, ["n", "t", HEADS, WIDTH // HEADS]
    )
    graph = helper.make_graph(
        nodes, "attention", ids, [out],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    folder = tmp_path_factory.mktemp("int8")
    onnx.save(scale_rows(attention_like()), folder / "model.onnx")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    onnx.save(fix_scales(onnx.load(_quantize(folder, folder / "int8"))), folder / "fixed.onnx")
    _fold(folder / "fixed.onnx", folder / "folded.onnx")
    return onnx.load(folder / "folded.onnx")


def run(model: onnx.ModelProto, ids: np.ndarray) -> np.ndarray:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {entry.name: ids for entry in session.get_inputs()})[0]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (5, 9)])
@pytest.mark.parametrize("rewrite", [fuse_products, fold_shapes, fuse])
def test_no_bit_changes(quantized: onnx.ModelProto, rewrite, shape: tuple[int, int]) -> None:
    ids = np.random.default_rng(2).integers(0, 80, shape)
    np.testing.assert_array_equal(run(rewrite(quantized), ids), run(quantized, ids))


def test_a_product_its_cast_and_its_scale_become_one(quantized: onnx.ModelProto) -> None:
    before, after = kinds(quantized), kinds(fuse_products(quantized))
    assert before["MatMulInteger"] == after["MatMulIntegerToFloat"] == 3
    assert after["MatMulInteger"] == 0
    assert before["Cast"] - after["Cast"] == 3


def test_products_of_the_same_rows_become_one(quantized: onnx.ModelProto) -> None:
    after = kinds(merge_products(fuse_products(quantized)))
    assert after["MatMulIntegerToFloat"] == after["Split"] == 1


def test_shapes_are_known_beforehand(quantized: onnx.ModelProto) -> None:
    folded = fold_shapes(quantized)
    assert not kinds(folded).keys() & {"Shape", "Unsqueeze", "Concat"}
    targets = {node.input[1] for node in folded.graph.node if node.op_type == "Reshape"}
    values = {t.name: numpy_helper.to_array(t).tolist() for t in folded.graph.initializer}
    assert [values[name] for name in targets] == [[0, 0, HEADS, WIDTH // HEADS]] * len(targets)


def test_weights_with_zero_points_stay_as_they_are(quantized: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    odd = next(node for node in model.graph.node if node.op_type == "MatMulInteger")
    for entry in model.graph.initializer:
        if entry.name == odd.input[3]:
            value = numpy_helper.to_array(entry)
            entry.CopyFrom(numpy_helper.from_array(np.full_like(value, 3), entry.name))
    assert kinds(fuse(model))["MatMulInteger"] == 1
    ids = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(run(fuse(model), ids), run(model, ids))


def test_weights_whose_zero_points_are_not_known_stay_as_they_are(
    quantized: onnx.ModelProto,
) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    at, odd = next(
        (i, node) for i, node in enumerate(model.graph.node) if node.op_type == "MatMulInteger"
    )
    model.graph.node.insert(at, helper.make_node("Neg", [odd.input[3]], ["computed"], "computed"))
    model.graph.node[at + 1].input[3] = "computed"
    assert kinds(fuse_products(model))["MatMulInteger"] == 1


def test_the_given_graph_is_left_alone(quantized: onnx.ModelProto) -> None:
    before = quantized.SerializeToString(deterministic=True)
    fuse(quantized)
    assert quantized.SerializeToString(deterministic=True) == before


def test_a_graph_that_gives_other_bits_is_refused(
    quantized: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
        out = onnx.ModelProto()
        out.CopyFrom(model)
        bias = next(t for t in out.graph.initializer if t.name == "key_bias")
        value = numpy_helper.to_array(bias)
        bias.CopyFrom(numpy_helper.from_array(np.nextafter(value, np.float32(9)), "key_bias"))
        return out

    monkeypatch.setattr(fusing, "merge_products", spoil)
    with pytest.raises(BundleError, match="other results"):
        fuse(quantized)


def test_the_shipped_graph_has_nothing_left_to_fuse() -> None:
    shipped = onnx.load(default_bundle_path() / "encoder.onnx")
    assert kinds(fuse(shipped)) == kinds(shipped)
