"""Rewriting a float graph so that int8 keeps its meaning, one text at a time.

Owns three rewrites of an ONNX graph. Two are exact but for rounding: channels that dwarf the
others are evened out against their weights (SmoothQuant: Xiao et al., ICML 2023), and rows are
divided by their largest magnitude. The third replaces ONNX Runtime's dynamic scale, one for a
whole batch, by a constant: a text's vector then does not depend on the texts beside it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hydra_edge.encoder import import_onnxruntime
from hydra_edge.errors import BundleError
from hydra_edge.types import Float1d, Progress

_ROW_FLOOR = 1e-6  # an all-zero row is divided by this, not by 0
# A unit row spans [-1, 1]: 127 steps on each side of 128, the same for every row.
_EVEN = (1 / 127, 128)
# Behind a Gelu nothing is below -0.17: 219 steps above 36, once a row's peak is above the floor.
_ONE_SIDED = (1 / 219, 36)
_ONE_SIDED_FLOOR = 0.17 * 219 / 36


def find_peaks(
    graph: Path, tokens: Sequence[Sequence[int]], *, progress: Progress
) -> dict[str, Float1d]:
    """Measure the largest magnitude of every channel that goes from a norm into a product.

    Returns
    -------
    dict
        The name of each such activation -> shape ``(channels,)``, above 0.
    """
    onnxruntime = import_onnxruntime()
    model = onnx.load(graph)
    names = sorted(
        source
        for source, producer in _dense_sources(model).items()
        if producer == "LayerNormalization"
    )
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    peaks: dict[str, Float1d] = {}
    for done, ids in enumerate(tokens, start=1):
        row = np.array([ids], dtype=np.int64)
        feed = {
            "input_ids": row,
            "attention_mask": np.ones_like(row),
            "token_type_ids": np.zeros_like(row),
        }
        for name, value in zip(names, session.run(names, feed), strict=True):
            peak = np.abs(value).max(axis=(0, 1))
            peaks[name] = np.maximum(peaks.get(name, np.float32(1e-6)), peak)
        progress("calibration", done, len(tokens))
    return peaks


def even_out(model: onnx.ModelProto, peaks: Mapping[str, Float1d]) -> onnx.ModelProto:
    """Rewrite ``x @ W`` as ``(x / c) @ (c * W)`` with one ``c`` per channel.

    Half of the spread of x's channels moves into the weights, where a scale per output channel
    bears it better. Exact but for rounding. In this model a handful of channels reach twenty
    times the root mean square in the frame tokens, and would leave the rest no resolution.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    weights = {entry.name: entry for entry in graph.initializer}
    factors: dict[str, Float1d] = {}
    for source, peak in peaks.items():
        readers = [n for n in graph.node if is_dense(n, weights) and n.input[0] == source]
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in readers]
        factor = _share(peak, np.max([np.abs(m).max(axis=1) for m in matrices], axis=0))
        for node, matrix in zip(readers, matrices, strict=True):
            name = node.input[1]
            weights[name].CopyFrom(numpy_helper.from_array(matrix * factor[:, None], name))
            node.input[0] = f"{source}_even"
        factors[source] = factor
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for source in set(node.output) & set(factors):
            inverse = f"{source}_inverse"
            graph.initializer.append(numpy_helper.from_array(1 / factors[source], inverse))
            nodes.append(helper.make_node("Mul", [source, inverse], [f"{source}_even"], inverse))
    return _with_nodes(out, nodes)


def _share(peak: Float1d, strength: Float1d) -> Float1d:
    """Split each channel's range evenly, in logarithms, between activation and weight."""
    factor = np.sqrt(peak / np.maximum(strength, 1e-6))
    return np.asarray(factor / np.exp(np.log(factor).mean()), dtype=np.float32)


def scale_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite ``x @ W`` as ``((x / s) @ W) * s``, with ``s`` the largest magnitude of x's row.

    Exact but for rounding. Products that read the same ``x`` share its scale.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    sources = _dense_sources(out)
    weights = {entry.name for entry in graph.initializer}
    for name, value in (("row_floor", _ROW_FLOOR), ("one_sided_floor", _ONE_SIDED_FLOOR)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "last_axis"))
    nodes: list[onnx.NodeProto] = []
    scaled: set[str] = set()
    for node in graph.node:
        if not is_dense(node, weights):
            nodes.append(node)
            continue
        source, product = node.input[0], node.output[0]
        one_sided = sources[source] == "Gelu"
        if source not in scaled:
            nodes.extend(_row_nodes(source, one_sided=one_sided))
            scaled.add(source)
        node.input[0] = _unit_name(source, one_sided=one_sided)
        node.output[0] = f"{product}_unscaled"
        nodes.append(node)
        nodes.append(
            helper.make_node(
                "Mul", [f"{product}_unscaled", f"{source}_row"], [product], f"{node.name}_rescale"
            )
        )
    return _with_nodes(out, nodes)


def fix_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize unit rows with constant scales instead of one found in each batch."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    for prefix, (step, zero) in (("even", _EVEN), ("one_sided", _ONE_SIDED)):
        for name, value in (("step", np.float32(step)), ("zero", np.uint8(zero))):
            graph.initializer.append(numpy_helper.from_array(np.array(value), f"{prefix}_{name}"))
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "DynamicQuantizeLinear":
            continue
        source, (quantized, scale, zero) = node.input[0], node.output
        kind = next((k for k in ("even", "one_sided") if source.endswith(f"_{k}_unit")), None)
        if kind is None:
            raise BundleError(
                f"Node {node.name} quantizes {source}, which has no scale per token; expected "
                "only products with trained weights to be quantized. Correct the exclusions."
            )
        fixed = [f"{kind}_step", f"{kind}_zero"]
        renamed |= dict(zip((scale, zero), fixed, strict=True))
        node.CopyFrom(helper.make_node("QuantizeLinear", [source, *fixed], [quantized], node.name))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.checker.check_model(out)
    return out


def is_dense(node: onnx.NodeProto, weights: Container[str]) -> bool:
    """Tell a product with trained weights from one of two activations (attention)."""
    return node.op_type == "MatMul" and node.input[1] in weights


def _dense_sources(model: onnx.ModelProto) -> dict[str, str]:
    """Name the activations that are multiplied with trained weights -> who makes them."""
    weights = {entry.name for entry in model.graph.initializer}
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    return {
        node.input[0]: producers[node.input[0]]
        for node in model.graph.node
        if is_dense(node, weights)
    }


def _unit_name(source: str, *, one_sided: bool) -> str:
    return f"{source}_{'one_sided' if one_sided else 'even'}_unit"


def _row_nodes(source: str, *, one_sided: bool) -> list[onnx.NodeProto]:
    """Divide the rows of ``source`` by their largest magnitude."""
    nodes, read, floor = [], source, "one_sided_floor"
    if not one_sided:
        read, floor = f"{source}_abs", "row_floor"
        nodes.append(helper.make_node("Abs", [source], [read], read))
    peak, row, unit = f"{source}_peak", f"{source}_row", _unit_name(source, one_sided=one_sided)
    nodes.append(helper.make_node("ReduceMax", [read, "last_axis"], [peak], peak))
    nodes.append(helper.make_node("Max", [peak, floor], [row], row))
    nodes.append(helper.make_node("Div", [source, row], [unit], unit))
    return nodes


def _with_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Replace a graph's nodes by ``nodes``, some of which are its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    onnx.checker.check_model(model)
    return model
