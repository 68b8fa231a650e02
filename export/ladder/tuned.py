"""The uppermost rung: an encoder whose last layer is trained on which records help whom.

Owns the model cut below its last layer, whose input is computed once and kept, and the training
of that layer. The loss is listwise: a user's records, ordered by their cosines with a query, are
to follow what they are worth to it. Needs torch; float32 throughout.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from export.data import LEAST_EARLIER, UserHistory
from hydra_edge.encoder import plan_batches
from hydra_edge.errors import ShapeError
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float2d, Progress
from hydra_edge.utility import utility

_TOKENS = 2048  # padded, of one batch


@dataclass(frozen=True, slots=True)
class Tuning:
    """How the last layer is trained: a step is one user's latest ``records``."""

    epochs: int = 2
    records: int = 30
    rate: float = 5e-5
    scale_rate: float = 0.05
    scale: float = 5.0  # what a cosine is multiplied by at first
    tau: float = 0.15


class CutEncoder:
    """A sentence encoder cut below its last layer.

    Parameters
    ----------
    source
        A model folder of the BERT family.
    max_tokens
        Longer texts are cut.
    """

    def __init__(self, source: Path, max_tokens: int) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # the weights are here; nothing is to be fetched
        from transformers import AutoModel, AutoTokenizer

        self.max_tokens = max_tokens
        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(source))
        self._model: Any = AutoModel.from_pretrained(str(source), attn_implementation="eager")
        self._model.eval()
        self.top = self._model.encoder.layer[-1]
        self.dim = int(self._model.config.hidden_size)
        self._states: dict[str, Tensor] = {}

    def keep(self, texts: Iterable[str], *, progress: Progress) -> None:
        """Compute and keep what the last layer is given of these texts, as float16."""
        missing = sorted(set(texts) - self._states.keys())
        if not missing:
            return
        tokens = self._tokenizer(missing, truncation=True, max_length=self.max_tokens)["input_ids"]
        done = 0
        with torch.inference_mode():
            for index in plan_batches([len(t) for t in tokens], budget=_TOKENS):
                rows = index.tolist()
                ids, mask = _padded([torch.tensor(tokens[i]) for i in rows])
                hidden = self._model.embeddings(input_ids=ids)
                for layer in self._model.encoder.layer[:-1]:
                    hidden = _through(layer, hidden, mask)
                for row, i in enumerate(rows):
                    self._states[missing[i]] = hidden[row, : len(tokens[i])].half().clone()
                done += len(rows)
                progress("ladder: lower layers", done, len(missing))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Return unit vectors of texts that were kept, shape ``(n, dim)``; gradients flow."""
        states = [self._states[text] for text in texts]
        rows: list[Tensor | None] = [None] * len(texts)
        for index in plan_batches([len(s) for s in states], budget=_TOKENS):
            batch, mask = _padded([states[i].float() for i in index.tolist()])
            hidden = _through(self.top, batch, mask) * mask[..., None]
            pooled = normalize(hidden.sum(1) / mask.sum(1, keepdim=True), dim=1)
            for i, row in zip(index.tolist(), pooled, strict=True):
                rows[i] = row
        return torch.stack([row for row in rows if row is not None])

    def snapshot(self, base_id: str) -> KeptEncoder:
        """Return the encoder as it is now; training it further does not change what is returned."""
        with torch.inference_mode():
            texts = sorted(self._states)
            found = self.vectors(texts).numpy()
        return KeptEncoder(base_id, self.dim, dict(zip(texts, found, strict=True)))


class KeptEncoder:
    """Vectors that were computed already, as an encoder of a base."""

    def __init__(self, base_id: str, dim: int, known: Mapping[str, np.ndarray]) -> None:
        self.base_id = base_id
        self.dim = dim
        self._known = known

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Return unit vectors, shape ``(n_texts, dim)``, float32.

        Raises
        ------
        ShapeError
            If one of the texts is not known.
        """
        if missing := [text for text in texts if text not in self._known]:
            raise ShapeError(
                f"{len(missing)} texts have no vector; expected those that were kept alone. Keep "
                "every text of the users first."
            )
        rows = [self._known[text] for text in texts]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, self.dim), np.float32)


def tune(
    encoder: CutEncoder,
    users: Sequence[tuple[UserHistory, TaskSpec]],
    how: Tuning,
    *,
    seed: int,
    progress: Progress,
) -> list[float]:
    """Train the last layer on users' own records as queries; only earlier ones are candidates.

    Parameters
    ----------
    users
        Training users, every text of whose latest records was kept.

    Returns
    -------
    list of float
        The loss of each step, nats a query.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tasks = sorted({task.name for _, task in users})
    scales = torch.nn.Parameter(torch.full((len(tasks), 2), how.scale))
    optimiser = torch.optim.Adam(
        [
            {"params": list(encoder.top.parameters()), "lr": how.rate},
            {"params": [scales], "lr": how.scale_rate},
        ]
    )
    rng, losses = np.random.default_rng(seed), []
    worth = [worth_of(user, task, how.records) for user, task in users]
    for epoch in range(how.epochs):
        for done, i in enumerate(rng.permutation(len(users)).tolist(), start=1):
            user, task = users[i]
            loss = _loss(encoder, user, worth[i], scales[tasks.index(task.name)], how)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            progress("ladder: last layer", epoch * len(users) + done, how.epochs * len(users))
    return losses


def worth_of(user: UserHistory, task: TaskSpec, records: int) -> Tensor:
    """Return what record j is worth to query i, shape ``(n, n)``; -1 where j is not earlier."""
    outputs = [record.output for record in user.records[-records:]]
    table = torch.full((len(outputs), len(outputs)), -1.0)
    for i in range(LEAST_EARLIER, len(outputs)):
        for j in range(i):
            table[i, j] = utility(outputs[j], outputs[i], task)
    return table


def _loss(
    encoder: CutEncoder, user: UserHistory, worth: Tensor, scale: Tensor, how: Tuning
) -> Tensor:
    records = user.records[-how.records :]
    rows = encoder.vectors([r.input for r in records] + [r.output for r in records])
    asked, written = rows[: len(records)], rows[len(records) :]
    scores = scale[0] * asked @ asked.T + scale[1] * asked @ written.T
    earlier = worth >= 0.0
    queries = earlier.any(dim=1)
    hidden = ~earlier[queries]
    target = (worth[queries] / how.tau).masked_fill(hidden, -torch.inf).softmax(dim=1)
    chosen = scores[queries].masked_fill(hidden, -1e9).log_softmax(dim=1)
    return -(target * chosen.masked_fill(hidden, 0.0)).sum(dim=1).mean()


def _through(layer: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    away = (1.0 - mask)[:, None, None, :] * torch.finfo(torch.float32).min
    out = layer(hidden, attention_mask=away)
    found: Tensor = out[0] if isinstance(out, tuple) else out
    return found


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return rows as one tensor filled with 0, and a mask that is 1 where something is."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    sizes = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(padded.shape[1])[None] < sizes[:, None]).float()
    return padded, mask
