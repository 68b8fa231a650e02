"""A bare llama_decode loop: what llama.cpp alone takes for the shape of a pool of candidates.

The least that any decoding on it can cost: no token is chosen, no logits are looked at. Shares
no code with ``hydra_edge``, so that it cannot share a fault.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as lib

from bench.guard import BenchError

_CONTEXT, _BATCH = 2048, 512


class BareLoop:
    """One model, with room for ``branches`` candidates beside their prompt."""

    def __init__(self, path: Path, *, branches: int, threads: int) -> None:
        lib.llama_backend_init()
        model_params = lib.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(os.fsencode(path), model_params)
        params = lib.llama_context_default_params()
        params.n_ctx = _CONTEXT
        params.n_batch = params.n_ubatch = _BATCH
        params.n_seq_max = branches + 1
        params.kv_unified = True
        params.flash_attn_type = 0
        params.swa_full = True
        params.n_threads = params.n_threads_batch = threads
        self._ctx = lib.llama_init_from_model(self._model, params)
        self._memory = lib.llama_get_memory(self._ctx)
        self._batch = lib.llama_batch_init(_BATCH, 0, 1)
        self._branches = branches
        self._at = 0

    def prompt(self, tokens: Sequence[int]) -> None:
        """Evaluate a prompt from nothing, at most 512 tokens at once."""
        lib.llama_memory_clear(self._memory, False)
        for start in range(0, len(tokens), _BATCH):
            part = tokens[start : start + _BATCH]
            self._put([(token, start + i, 0) for i, token in enumerate(part)])
        self._at = len(tokens)

    def steps(self, count: int, token: int) -> None:
        """Branch off the prompt and evaluate so many tokens of every branch, all in one batch."""
        for branch in range(1, self._branches + 1):
            lib.llama_memory_seq_cp(self._memory, 0, branch, -1, -1)
        for step in range(count):
            self._put([(token, self._at + step, b) for b in range(1, self._branches + 1)])
        for branch in range(1, self._branches + 1):
            lib.llama_memory_seq_rm(self._memory, branch, -1, -1)

    def close(self) -> None:
        """Free the model."""
        lib.llama_batch_free(self._batch)
        lib.llama_free(self._ctx)
        lib.llama_model_free(self._model)

    def _put(self, rows: Sequence[tuple[int, int, int]]) -> None:
        """Evaluate rows of token, position and sequence; a prompt needs logits of its last only."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = sequence > 0 or i == len(rows) - 1
        status = lib.llama_decode(self._ctx, batch)
        if status:
            raise BenchError(f"llama_decode gave {status} for {len(rows)} rows; expected 0")
        lib.llama_synchronize(self._ctx)
