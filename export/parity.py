"""Is the int8 graph still the model it was made from? Measured on real texts, and gated.

Owns the reference (the model in torch, float32), the comparisons and their limits. The graphs
run through ``hydra_edge.encoder``, the very code of the device.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
from onnx import numpy_helper

from export.data import LEAST_RECORDS, UserHistory, read_users, sample_users
from export.encoder import MAX_WEIGHT
from export.fuse import FUSED, PLAIN
from export.pack import Card, neutral_maps, pack
from hydra_edge.encoder import Encoder
from hydra_edge.errors import BundleError
from hydra_edge.types import Float2d, JsonDict, Progress, Role

USERS_PER_TASK = 10
RECORDS_PER_USER = 30
CALIBRATION = 5  # records of each user that show how large channels become
TOP = 4  # records shown to an LLM by default
_BATCH = 16


@dataclass(frozen=True)
class Limit:
    """A figure of parity and what it must reach; ``why`` goes into the error."""

    figure: str
    low: float
    high: float
    why: str


# What quantization costs here, measured: cosine .997 in the mean and .99 at the least, Spearman
# .99, one in 25 of the top four exchanged for a neighbour nearly as near. The limits leave room
# for other weights of this shape; saturated weights or a lost layer end far outside (cosine
# below .9), and one scale for a whole batch misses the last but one (.96).
LIMITS = (
    Limit("float_max_abs_difference", 0.0, 1e-4, "the conversion to ONNX changed the model"),
    Limit("int8_cosine_mean", 0.99, 1.0, "int8 vectors point elsewhere"),
    Limit("int8_cosine_min", 0.97, 1.0, "int8 vectors of some texts point elsewhere"),
    Limit("int8_spearman", 0.97, 1.0, "int8 orders a user's records otherwise"),
    Limit("int8_top4_overlap", 0.93, 1.0, "int8 chooses other records"),
    Limit("batch_cosine_min", 0.9999, 1.0, "a vector depends on the texts beside it"),
    Limit("weight_max_abs", 1, MAX_WEIGHT, "weights saturate on CPUs without VNNI"),
)


class TorchEncoder:
    """The reference: the model as its authors publish it, float32, one text at a time."""

    def __init__(self, source: Path, max_tokens: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import AutoModel, AutoTokenizer

        self.max_tokens = max_tokens
        self._tokenizer = AutoTokenizer.from_pretrained(str(source))
        self._model = AutoModel.from_pretrained(str(source)).eval()

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Return unit vectors, shape ``(n_texts, dim)``, float32."""
        import torch

        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), _BATCH):
                batch = self._tokenizer(
                    list(texts[start : start + _BATCH]), return_tensors="pt", padding=True,
                    truncation=True, max_length=self.max_tokens,
                )  # fmt: skip
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1).float()
                pooled = (hidden * mask).sum(1) / mask.sum(1)
                rows.append(torch.nn.functional.normalize(pooled, dim=1).numpy())
                if progress is not None:
                    progress("torch", min(start + _BATCH, len(texts)), len(texts))
        return np.concatenate(rows)


def parity_histories(files: Sequence[Path], *, seed: int = 0) -> list[UserHistory]:
    """Draw a few users of every task, each with at least a dozen records.

    Raises
    ------
    BundleError
        If the files hold no such user.
    """
    users = read_users(files)
    drawn: list[UserHistory] = []
    for task in sorted({user.task for user in users}):
        of_task = [user for user in users if user.task == task]
        drawn += sample_users(of_task, USERS_PER_TASK, least=LEAST_RECORDS, seed=seed)
    if not drawn:
        raise BundleError(
            f"No user with {LEAST_RECORDS} records in {', '.join(map(str, files)) or 'no file'}; "
            "expected real histories to measure parity on. Give them with --data."
        )
    return drawn


def calibration_texts(files: Sequence[Path], *, besides: Sequence[UserHistory]) -> list[str]:
    """Draw texts of other users than those whose parity is measured: inputs and outputs.

    Of the same users where there are no others: better than none.
    """
    taken = {user.user for user in besides}
    texts: list[str] = []
    users = [user for user in read_users(files) if user.user not in taken] or list(besides)
    for task in sorted({user.task for user in users}):
        of_task = [user for user in users if user.task == task]
        for user in sample_users(of_task, USERS_PER_TASK, least=1, seed=0):
            texts += [text for r in user.records[-CALIBRATION:] for text in (r.input, r.output)]
    return list(dict.fromkeys(["", *texts]))  # the frame tokens alone are the extreme case


def graph_encoder(folder: Path, graph: Path, tokenizer: Path, card: Card) -> Encoder:
    """Run any graph the way the device does: as the encoder of a bundle made in ``folder``."""
    names: dict[Role, tuple[str, ...]] = dict.fromkeys(get_args(Role), ("none",))
    maps = neutral_maps(names)
    return Encoder(
        pack(folder, encoder=graph, tokenizer=tokenizer, card=card, maps=maps, features=names)
    )


def measure(
    reference: TorchEncoder,
    float_graph: Encoder,
    int8_graph: Encoder,
    histories: Sequence[UserHistory],
    *,
    progress: Progress | None = None,
) -> JsonDict:
    """Compare the three on real texts.

    Returns
    -------
    JsonDict
        The figures of ``LIMITS`` and their context, rounded: the last digits of a float sum
        are the machine's, not the model's.

    Raises
    ------
    BundleError
        If nobody has records enough that differ: their order is what is compared.
    """
    recent = [user.records[-RECORDS_PER_USER:] for user in histories]
    inputs_of = [list(dict.fromkeys(r.input for r in records)) for records in recent]
    if not any(len(of_user) > TOP + 1 for of_user in inputs_of):
        most = max(map(len, inputs_of), default=0)
        raise BundleError(
            f"int8 cannot be compared with float32: got {most} different inputs of a user at most; "
            f"expected {TOP + 2} of some, whose order can be compared. Give histories whose inputs "
            "differ more."
        )
    outputs = (r.output for records in recent for r in records)
    texts = list(dict.fromkeys([*(text for of_user in inputs_of for text in of_user), *outputs]))
    row = {text: i for i, text in enumerate(texts)}
    torch_rows = reference.encode(texts, progress=progress)
    float_rows = float_graph.encode(texts, progress=_named("float ONNX", progress))
    int8_rows = int8_graph.encode(texts, progress=_named("int8 ONNX", progress))
    alone = np.concatenate([int8_graph.encode([text]) for text in texts[::4]])
    cosines = (torch_rows * int8_rows).sum(axis=1)
    agreement = [
        rank_agreement(torch_rows[index], int8_rows[index])
        for index in ([row[text] for text in of_user] for of_user in inputs_of)
        if len(index) > TOP + 1
    ]
    weights = dense_weights(int8_graph.bundle.encoder_path)
    figures = {
        "float_max_abs_difference": float(np.abs(torch_rows - float_rows).max()),
        "int8_cosine_mean": float(cosines.mean()),
        "int8_cosine_min": float(cosines.min()),
        "int8_spearman": float(np.mean([a.spearman for a in agreement])),
        "int8_kendall": float(np.mean([a.kendall for a in agreement])),
        "int8_top4_overlap": float(np.mean([a.top_overlap for a in agreement])),
        "batch_cosine_min": float((alone * int8_rows[::4]).sum(axis=1).min()),
    }
    return {
        **{name: float(f"{value:.4g}") for name, value in figures.items()},
        "weight_max_abs": max(weights.values()),
        "quantized_products": len(weights),
        "texts": len(texts),
        "users": len(agreement),
        "max_tokens": reference.max_tokens,
    }


def _named(stage: str, progress: Progress | None) -> Progress | None:
    """Report under another name: two encoders of one kind are two stages here."""
    if progress is None:
        return None
    return lambda _, done, total: progress(stage, done, total)


@dataclass(frozen=True)
class Agreement:
    """How alike two encoders order one user's records for that user's own texts."""

    spearman: float
    kendall: float
    top_overlap: float


def rank_agreement(first: Float2d, second: Float2d) -> Agreement:
    """Take each text as the query for all others, and compare the two orders.

    Parameters
    ----------
    first, second
        Shape ``(n_texts, dim)``, unit rows of the same texts.
    """
    from scipy.stats import kendalltau, spearmanr

    spearman, kendall, overlap = [], [], []
    for query in range(len(first)):
        others = np.arange(len(first)) != query
        a, b = first[others] @ first[query], second[others] @ second[query]
        spearman.append(float(spearmanr(a, b).statistic))
        kendall.append(float(kendalltau(a, b).statistic))
        best = set(np.argsort(-a)[:TOP]) & set(np.argsort(-b)[:TOP])
        overlap.append(len(best) / TOP)
    return Agreement(float(np.mean(spearman)), float(np.mean(kendall)), float(np.mean(overlap)))


def dense_weights(graph: Path) -> dict[str, int]:
    """Return the largest magnitude in every integer product's weights, by node.

    Raises
    ------
    BundleError
        If there is none, or one whose weights are not constants of the graph.
    """
    model = onnx.load(graph)
    constants = {entry.name: entry for entry in model.graph.initializer}
    found: dict[str, int] = {}
    for node in model.graph.node:
        if node.op_type not in (PLAIN, FUSED):
            continue
        if node.input[1] not in constants:
            raise BundleError(f"{graph}: {node.name} multiplies two activations in int8.")
        weight = numpy_helper.to_array(constants[node.input[1]]).astype(np.int32)
        found[node.name] = int(np.abs(weight).max())
    if not found:
        raise BundleError(f"{graph} has no integer product; expected an int8 graph.")
    return found


def check(figures: JsonDict, within: Sequence[Limit] = LIMITS) -> None:
    """Fail unless every figure is within its limits.

    Raises
    ------
    BundleError
        Naming each figure that is not.
    """
    missed = [
        f"{limit.figure} = {figures[limit.figure]} (expected {limit.low} to {limit.high}: "
        f"{limit.why})"
        for limit in within
        if not limit.low <= figures[limit.figure] <= limit.high
    ]
    if missed:
        raise BundleError(f"Parity is missed: {'; '.join(missed)}. Nothing was written.")


def limits(within: Sequence[Limit] = LIMITS) -> JsonDict:
    """Return the limits in force, for the manifest."""
    return {limit.figure: [limit.low, limit.high] for limit in within}
