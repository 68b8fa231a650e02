"""The cross-encoder of the published method in torch, and the heads trained with it.

Owns tokens of pairs, [CLS] vectors, and the stack of heads. Scoring always has dropout off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from export.published.head import Head, TextPair
from hydra_edge.encoder import plan_batches
from hydra_edge.errors import BundleError
from hydra_edge.types import Float2d, Progress

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
SOURCE_WEIGHTS = "model.safetensors"
_TOKEN_BUDGET = 2048  # padded tokens of one batch that is only scored
_UNUSED = ("pooler.", "embeddings.position_ids")  # of the source, which we do not need


@dataclass(frozen=True, slots=True)
class Tokens:
    """A pair as the model reads it: [CLS] first [SEP] second [SEP]."""

    ids: tuple[int, ...]
    types: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


class CrossEncoder:
    """A BERT that reads two texts at once.

    Parameters
    ----------
    model
        Without its pooling layer.
    tokenizer
        One that knows how to put a pair together.
    max_tokens
        Longer pairs are cut at the end of the longer text.
    """

    def __init__(self, model: BertModel, tokenizer: Tokenizer, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    @classmethod
    def load(cls, folder: Path, max_tokens: int, weights: str = SOURCE_WEIGHTS) -> CrossEncoder:
        """Read a model folder with config, tokenizer and safetensors.

        Raises
        ------
        BundleError
            If a file is missing, or does not fit the others.
        """
        try:
            config = BertConfig.from_json_file(str(folder / CONFIG_FILE))
            with torch.random.fork_rng(devices=[]):  # it starts from random weights
                model = BertModel(config, add_pooling_layer=False)
            stored = load_file(folder / weights)
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
            state = {name: value for name, value in stored.items() if not name.startswith(_UNUSED)}
            model.load_state_dict(state)
        except Exception as err:  # tokenizers raises nothing narrower
            raise BundleError(
                f"{folder} cannot be read as a cross-encoder: {err}. Expected {CONFIG_FILE}, "
                f"{TOKENIZER_FILE} and {weights} of one BERT. Make the folder again."
            ) from err
        if not all(bool(torch.isfinite(value).all()) for value in state.values()):
            raise BundleError(
                f"{folder / weights} holds values that are not finite; expected trained weights. "
                "Make the folder again."
            )
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens, strategy="longest_first")
        return cls(model.eval(), tokenizer, max_tokens)

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self.model.config.hidden_size)

    def tokenize(self, pairs: Sequence[TextPair]) -> list[Tokens]:
        """Turn pairs into tokens, at most ``max_tokens`` of each."""
        found = self.tokenizer.encode_batch([tuple(pair) for pair in pairs])
        return [Tokens(tuple(one.ids), tuple(one.type_ids)) for one in found]

    def forward(self, batch: Sequence[Tokens]) -> Tensor:
        """Return [CLS] vectors, shape ``(len(batch), h)``, as the model's mode has them."""
        longest = max(map(len, batch))
        rows = torch.zeros((3, len(batch), longest), dtype=torch.long)  # ids, types, mask
        for row, tokens in enumerate(batch):
            n = len(tokens)
            rows[0, row, :n] = torch.tensor(tokens.ids)
            rows[1, row, :n] = torch.tensor(tokens.types)
            rows[2, row, :n] = 1
        out = self.model(input_ids=rows[0], token_type_ids=rows[1], attention_mask=rows[2])
        cls: Tensor = out.last_hidden_state[:, 0]
        return cls

    def encode(self, pairs: Sequence[TextPair], *, progress: Progress | None = None) -> Float2d:
        """Return [CLS] vectors, shape ``(n_pairs, h)``, float32; dropout is off."""
        vectors = np.zeros((len(pairs), self.width), dtype=np.float32)
        tokens = self.tokenize(pairs)
        self.model.eval()
        done = 0
        with torch.inference_mode():
            for index in plan_batches([len(t) for t in tokens], budget=_TOKEN_BUDGET):
                rows = index.tolist()
                vectors[rows] = self.forward([tokens[i] for i in rows]).numpy()
                done += len(rows)
                if progress is not None:
                    progress("pair vectors", done, len(pairs))
        return vectors


class Heads(nn.Module):
    """The heads of several users: dropout, W_u and tanh, dropout, two classes.

    Initialised as one ``nn.Linear`` each, by the real fan-in.
    """

    def __init__(self, users: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.inner = nn.Parameter(torch.empty(users, width, width))
        self.inner_bias = nn.Parameter(torch.empty(users, width))
        self.outer = nn.Parameter(torch.empty(users, 2, width))
        self.outer_bias = nn.Parameter(torch.empty(users, 2))
        bound = 1.0 / math.sqrt(width)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, vectors: Tensor, user: Tensor) -> Tensor:
        """Return logits, shape ``(n, 2)``, of ``vectors`` (n, h), each by head ``user`` (n,)."""
        hidden = self._linear(self.inner, self.inner_bias, user, self.dropout(vectors))
        hidden = self.dropout(torch.tanh(hidden))
        return self._linear(self.outer, self.outer_bias, user, hidden)

    @staticmethod
    def _linear(weight: Tensor, bias: Tensor, user: Tensor, vectors: Tensor) -> Tensor:
        if len(weight) == 1:  # a user alone: nothing to look up, some ten times faster
            return nn.functional.linear(vectors, weight[0], bias[0])
        return torch.einsum("nij,nj->ni", weight[user], vectors) + bias[user]

    def head(self, user: int) -> Head:
        """Return one user's head as arrays of its own."""
        arrays = (self.inner, self.inner_bias, self.outer, self.outer_bias)
        return Head(*(p.detach()[user].numpy().astype(np.float32, copy=True) for p in arrays))
