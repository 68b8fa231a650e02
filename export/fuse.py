"""Rewriting an int8 graph so that it takes fewer steps and gives the very same bits.

Owns three rewrites. A product and what makes floats of its integers become one operator of ONNX
Runtime; products that read the same rows (a layer's query, key and value) become one; shapes
that are the same for every text are computed here, not at every run on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from hydra_edge.encoder import import_onnxruntime
from hydra_edge.errors import BundleError

_RUNTIME = "com.microsoft"  # the domain of ONNX Runtime's own operators
PLAIN, FUSED = "MatMulInteger", "MatMulIntegerToFloat"  # an integer product, before and after
_UNIT = "unit_scale"  # rows carry their own scales, and so need none in a product
# Shapes (texts, tokens) whose results tell what of a graph depends on them.
_PROBES = ((2, 5), (3, 7), (1, 11))

Probed = Mapping[str, Sequence[npt.NDArray[np.generic]]]


class _Graph:
    """A copy of a model to be rewritten: who makes and who reads each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes = list(self.model.graph.node)
        self.weights = {entry.name: entry for entry in self.model.graph.initializer}
        self.outputs = {entry.name for entry in self.model.graph.output}

    def array(self, name: str) -> npt.NDArray[np.generic]:
        """Return a weight."""
        return np.asarray(numpy_helper.to_array(self.weights[name]))

    def is_zero(self, name: str) -> bool:
        """Whether an optional input is left out, or known to hold nothing but zeros."""
        return not name or (name in self.weights and not self.array(name).any())

    def add(self, name: str, value: npt.ArrayLike) -> str:
        """Keep a weight under a name; return the name."""
        self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def only_reader(self, name: str, op_type: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, if it is of this type."""
        found = [node for node in self.nodes if name in node.input]
        alone = len(found) == 1 and found[0].op_type == op_type and name not in self.outputs
        return found[0] if alone else None

    def replace(self, nodes: Sequence[onnx.NodeProto], by: Sequence[onnx.NodeProto]) -> None:
        """Put ``by`` where the first of ``nodes`` is, and drop them all."""
        gone = {id(node) for node in nodes}
        place = next(i for i, node in enumerate(self.nodes) if id(node) in gone)
        left = [node for node in self.nodes[:place] if id(node) not in gone]
        right = [node for node in self.nodes[place:] if id(node) not in gone]
        self.nodes = [*left, *by, *right]

    def finished(self) -> onnx.ModelProto:
        """Return the model, without what nobody reads any more."""
        needed, kept = set(self.outputs), list[onnx.NodeProto]()
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
                needed.update(node.input)
        graph = self.model.graph
        weights = [
            onnx.TensorProto.FromString(entry.SerializeToString())
            for name, entry in self.weights.items()
            if name in needed
        ]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(weights)
        domains = {entry.domain for entry in self.model.opset_import}
        if any(node.domain == _RUNTIME for node in kept) and _RUNTIME not in domains:
            self.model.opset_import.append(helper.make_opsetid(_RUNTIME, 1))
        onnx.checker.check_model(self.model)
        return self.model


def fuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply all rewrites; the result gives the same bits on every input.

    Raises
    ------
    BundleError
        If it does not, on texts of a few lengths.
    """
    fused = fold_shapes(merge_products(fuse_products(model)))
    for before, after in zip(_run(model), _run(fused), strict=True):
        if not np.array_equal(before, after):
            raise BundleError(
                "The fused graph gives other results than the graph it was made from; expected "
                "the same bits. Ship the graph as it was, and correct export/fuse.py."
            )
    return fused


def fuse_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make one operator of an integer product, the cast of its sums, and their scaling.

    Only where the weights' zero points are 0: the fused operator is not told them.
    """
    graph = _Graph(model)
    graph.add(_UNIT, np.float32(1))
    for node in [n for n in graph.nodes if n.op_type == PLAIN]:
        cast = graph.only_reader(node.output[0], "Cast")
        scaled = cast and graph.only_reader(cast.output[0], "Mul")
        if not cast or not scaled or not all(map(graph.is_zero, node.input[3:])):
            continue
        scale = next(name for name in scaled.input if name != cast.output[0])
        if scale not in graph.weights:
            continue
        rows, weight, *zero = node.input[:3]
        fused = helper.make_node(
            FUSED, [rows, weight, _UNIT, scale, *zero], scaled.output, node.name, domain=_RUNTIME
        )  # fmt: skip
        graph.replace([node, cast, scaled], [fused])
    return graph.finished()


def merge_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make one product of those that read the same rows, each rescaled and given its bias."""
    graph = _Graph(model)
    chains = sorted(_chains(graph), key=lambda chain: chain[0].input[0])
    for rows, group in groupby(chains, key=lambda chain: chain[0].input[0]):
        siblings = list(group)
        if len(siblings) == 1:
            continue
        products, rescaled, biased = (list(nodes) for nodes in zip(*siblings, strict=True))
        row = next(name for name in rescaled[0].input if name != products[0].output[0])
        biases = [next(n for n in node.input if n in graph.weights) for node in biased]
        widths = [graph.array(name).shape[0] for name in biases]
        weight = graph.add(
            f"{rows}_weights", np.concatenate([graph.array(p.input[1]) for p in products], axis=1)
        )
        scale = graph.add(
            f"{rows}_scales",
            np.concatenate([
                np.broadcast_to(graph.array(p.input[3]), width)
                for p, width in zip(products, widths, strict=True)
            ]),
        )  # fmt: skip
        bias = graph.add(f"{rows}_biases", np.concatenate([graph.array(b) for b in biases]))
        parts = graph.add(f"{rows}_widths", np.array(widths, np.int64))
        names = [f"{rows}_{step}" for step in ("product", "rescaled", "biased")]
        nodes = [
            helper.make_node(
                FUSED, [rows, weight, _UNIT, scale, *products[0].input[4:]], names[:1],
                names[0], domain=_RUNTIME,
            ),
            helper.make_node("Mul", [names[0], row], names[1:2], names[1]),
            helper.make_node("Add", [names[1], bias], names[2:], names[2]),
            helper.make_node(
                "Split", [names[2], parts], [n.output[0] for n in biased], f"{rows}_split", axis=-1
            ),
        ]  # fmt: skip
        graph.replace([*products, *rescaled, *biased], nodes)
    return graph.finished()


def _chains(graph: _Graph) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]]:
    """Yield every fused product with its rescaling by rows and the bias added to it."""
    for node in graph.nodes:
        if node.op_type != FUSED:
            continue
        rescaled = graph.only_reader(node.output[0], "Mul")
        biased = rescaled and graph.only_reader(rescaled.output[0], "Add")
        if rescaled and biased and any(name in graph.weights for name in biased.input):
            yield node, rescaled, biased


def fold_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace what follows from a graph's shapes alone by constants, where it is constant.

    A reshape to the number of texts and tokens keeps them by ONNX's 0 (as in the input) and -1
    (what is left).
    """
    graph = _Graph(model)
    shapes = _of_shapes(graph)
    reshapes = [n for n in graph.nodes if n.op_type == "Reshape" and n.input[1] in shapes]
    probed = _probe(model, sorted(shapes | {node.input[0] for node in reshapes}))
    for name in sorted(shapes):
        first, *others = probed[name]
        if all(np.array_equal(first, other) for other in others):
            maker = next(node for node in graph.nodes if name in node.output)
            graph.nodes.remove(maker)
            graph.add(name, first)
    for node in reshapes:
        target = None if node.input[1] in graph.weights else _target(node, probed)
        if target is not None:
            node.input[1] = graph.add(f"{node.output[0]}_shape", target)
    return graph.finished()


def _of_shapes(graph: _Graph) -> set[str]:
    """Name every tensor that depends on the inputs' shapes, and not on what they hold."""
    found: set[str] = set()
    for node in graph.nodes:
        free = [name for name in node.input if name and name not in graph.weights]
        if node.op_type == "Shape" or (free and found.issuperset(free)):
            found.update(node.output)
    return found


def _target(node: onnx.NodeProto, probed: Probed) -> npt.NDArray[np.int64] | None:
    """Write a reshape's target for inputs of any shape; None if it cannot be written so."""
    wanted = [[int(size) for size in value] for value in probed[node.input[1]]]
    given = [value.shape for value in probed[node.input[0]]]
    target = []
    for place, sizes in enumerate(zip(*wanted, strict=True)):
        if len(set(sizes)) == 1:
            target.append(sizes[0])
        elif all(len(s) > place and s[place] == n for s, n in zip(given, sizes, strict=True)):
            target.append(0)
        else:
            target.append(-1)
    return np.array(target, np.int64) if target.count(-1) <= 1 else None


def _probe(model: onnx.ModelProto, names: Sequence[str]) -> Probed:
    """Run a graph on texts of several shapes; return what ``names`` hold in each run."""
    probing = onnx.ModelProto()
    probing.CopyFrom(model)
    del probing.graph.output[:]
    probing.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    runs = _run(probing, names) if names else iter(())
    by_run = [dict(zip(names, values, strict=True)) for values in runs]
    return {name: [values[name] for values in by_run] for name in names}


def _run(
    model: onnx.ModelProto, names: Sequence[str] | None = None
) -> Iterator[list[npt.NDArray[np.generic]]]:
    """Yield a graph's outputs for each probe, without any rewrite of ONNX Runtime's own."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    asked = {entry.name for entry in session.get_inputs()}
    for texts, tokens in _PROBES:
        ids = np.arange(texts * tokens).reshape(texts, tokens)
        feed = {
            "input_ids": ids,
            "attention_mask": (ids != texts * tokens - 1).astype(np.int64),  # one is padding
            "token_type_ids": np.zeros_like(ids),
        }
        yield session.run(names, {name: feed[name] for name in asked})
