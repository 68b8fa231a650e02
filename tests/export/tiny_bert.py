"""A BERT of two layers and random weights, in the files of the real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel


def write_model(
    folder: Path, words: Sequence[str], *, width: int, inner: int = 64, positions: int = 64
) -> None:
    """Write the model and its config, the same at every call; the tokenizer is another matter."""
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=inner, max_position_embeddings=positions,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(config)  # with a pooling layer, as the real one has
    save_file(dict(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(config.to_json_string())


def word_pieces(words: Sequence[str]) -> Tokenizer:
    """Make a tokenizer that works as the real one does, of words that begin with the same marks.

    These are ``[PAD]``, ``[UNK]``, ``[CLS]`` and ``[SEP]``.
    """
    numbers = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer
