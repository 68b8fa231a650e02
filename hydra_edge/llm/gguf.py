"""One GGUF and its KV cache, on llama-cpp-python's low-level API.

Owns the model, the context and which tokens the cache holds. Sequence 0 is the prompt, kept
between calls; sequences 1.. are branches that share the prompt's cells. Hands out logits, never
chooses a token, and knows nothing of prompts, tasks or stop strings. Not thread-safe: its
owner takes turns.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.kept import KeptStates, file_identity
from hydra_edge.llm.native import import_llama_cpp
from hydra_edge.llm.tiles import has_tiles, tiles_work
from hydra_edge.types import Float1d, Float2d

_BATCH = 512  # most tokens evaluated at once
# A prompt is evaluated in portions that begin at multiples of this many tokens, and reused by
# whole portions: kernels round differently with the number of rows, so only then are a prompt's
# logits the same to the last bit whatever was evaluated before it. Larger portions were no
# faster (SmolLM2, 406 tokens, one thread: 16 tokens 1.82 s, 32 1.72 s, 64 1.72 s, 512 1.76 s).
PORTION = 32


def check_gguf(path: Path) -> None:
    """Refuse what is not a GGUF before native code parses it.

    Raises
    ------
    BackendError
        If the file is missing, unreadable, or does not begin as a GGUF does.
    """
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except OSError as err:
        raise BackendError(
            f"Model file {path} cannot be read: {err.strerror or err}. Expected a GGUF file. "
            "Run `hydra-edge models` to see what is installed."
        ) from err
    if magic != b"GGUF":
        raise BackendError(
            f"Model file {path} is not a GGUF: it begins with {magic!r}; expected b'GGUF'. "
            "Convert or download the model in GGUF format."
        )


@dataclass(frozen=True, slots=True)
class Feed:
    """One token to evaluate: at which position of which sequence, and whether to see logits."""

    token: int
    position: int
    sequence: int
    logits: bool = True


class Gguf:
    """A loaded model.

    Parameters
    ----------
    path
        The GGUF file.
    n_ctx
        Context window in tokens, at most what the model was trained for.
    slots
        How many branches can be alive at once beside the prompt.
    threads
        How many to begin with; ``use_threads`` changes it.
    states
        Folder for the states of beginnings that prompts share; None keeps none.
    """

    def __init__(
        self, path: Path, *, n_ctx: int, slots: int, threads: int, states: Path | None = None
    ) -> None:
        check_gguf(path)
        self._lib = lib = import_llama_cpp()
        lib.llama_backend_init()
        model_params = lib.llama_model_default_params()
        model_params.n_gpu_layers = 0
        # Weights are then left as they are in the file instead of arranged for faster kernels.
        self.without_tiles = has_tiles(lib) and not tiles_work(lib, path)
        model_params.use_extra_bufts = not self.without_tiles
        self._model = lib.llama_model_load_from_file(os.fsencode(path), model_params)
        self._ctx = None
        if not self._model:
            raise BackendError(
                f"Model file {path} cannot be loaded by llama.cpp {lib.__version__}: damaged, or "
                "of a newer kind. Download it again, or upgrade llama-cpp-python."
            )
        if lib.llama_model_has_encoder(self._model):
            self.close()
            raise BackendError(f"Model file {path} is an encoder; expected a text generator.")
        params = lib.llama_context_default_params()
        params.n_ctx = self.n_ctx = min(n_ctx, lib.llama_model_n_ctx_train(self._model) or n_ctx)
        params.n_batch = params.n_ubatch = min(_BATCH, max(self.n_ctx, slots))
        params.n_seq_max = slots + 1
        params.kv_unified = True  # branches share the prompt's cells instead of a slice each
        # Flash attention rounds differently with the number of rows, and is not faster here.
        params.flash_attn_type = 0
        params.swa_full = True  # a sliding window keeps its past, so that prefixes can be reused
        params.n_threads = params.n_threads_batch = threads
        self._ctx = lib.llama_init_from_model(self._model, params)
        if not self._ctx:
            self.close()
            raise BackendError(
                f"Model {path.name}: no context of {self.n_ctx} tokens could be made; expected "
                "enough free memory. Use a smaller model or a shorter context."
            )
        self.slots = slots
        self._memory = lib.llama_get_memory(self._ctx)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))
        self.add_bos = bool(lib.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(lib.llama_vocab_bos(self._vocab))
        self.eos = int(lib.llama_vocab_eos(self._vocab))  # -1 where there is none
        self.eot = int(lib.llama_vocab_eot(self._vocab))
        self._pieces: dict[int, bytes] = {}
        self._batch = lib.llama_batch_init(params.n_batch, 0, 1)
        self._n_batch = int(params.n_batch)
        self._held: list[int] = []  # the tokens of sequence 0
        self._seen: Float1d | None = None  # logits after the last of them
        self._kept: KeptStates | None = None
        if states is not None:
            made_by = f"{lib.__version__} {lib.llama_print_system_info()!r}"
            made_by += " without tiles" if self.without_tiles else ""
            self._kept = KeptStates(states, f"{file_identity(path)} {made_by} {PORTION}")

    def check_open(self) -> None:
        """Refuse to touch freed memory.

        Raises
        ------
        BackendError
            If the model has been closed.
        """
        if self._ctx is None:
            raise BackendError("This model has been closed. Open it again to use it.")

    # ---- vocabulary

    def template(self) -> str | None:
        """Return the chat template the model carries, if any."""
        raw = self._lib.llama_model_chat_template(self._model, None)
        return raw.decode("utf-8", "replace") if raw else None

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Split a text into tokens; unless ``special``, control tokens in it are plain text."""
        raw = text.encode("utf-8", "replace")
        size = len(raw) + 8
        buffer = (ctypes.c_int32 * size)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), buffer, size, False, special)
        if count < 0:
            raise BackendError(f"A text of {len(raw)} bytes cannot be split into tokens.")
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """Return a token's bytes, which may be part of a character; control tokens have none."""
        piece = self._pieces.get(token)
        if piece is None:
            buffer = ctypes.create_string_buffer(256)
            size = self._lib.llama_token_to_piece(self._vocab, token, buffer, 256, 0, False)
            piece = self._pieces[token] = buffer.raw[:size] if size > 0 else b""
        return piece

    def is_end(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    # ---- evaluation

    def use_threads(self, threads: int) -> None:
        """Evaluate with this many threads from now on; the logits stay the same bits."""
        self.check_open()
        self._lib.llama_set_n_threads(self._ctx, threads, threads)

    def prompt(
        self,
        tokens: Sequence[int],
        *,
        shared: int = 0,
        between: Callable[[], None] | None = None,
    ) -> Float1d:
        """Make sequence 0 hold these tokens, evaluating only what it does not hold yet.

        Parameters
        ----------
        tokens
            The whole prompt.
        shared
            How many of the first tokens begin other prompts too: whole portions of them are
            kept on disk, if there is a folder for it.
        between
            Called before each portion; what it raises ends the evaluation, and harms nothing.

        Returns
        -------
        Float1d
            Shape ``(n_vocab,)``: logits of the token after the last.

        Raises
        ------
        ContextLengthError
            If they leave no room for a single token more.
        """
        self.check_open()
        if not tokens or len(tokens) >= self.n_ctx:
            raise ContextLengthError(
                f"Prompt: got {len(tokens)} tokens; expected 1 to {self.n_ctx - 1}. Shorten "
                "the query, or show fewer records."
            )
        wanted = list(tokens)
        self.release()
        if self._held == wanted and self._seen is not None:
            return self._seen
        last = len(wanted) - 1  # evaluated in any case, for its logits
        shared = min(shared, last) // PORTION * PORTION if self._kept else 0
        keep = self._keep(wanted, last)
        if keep < shared and self._restore(wanted[:shared]):
            keep = shared
        for start in range(keep, len(wanted), PORTION):
            if between is not None:
                between()
            part = wanted[start : start + PORTION]
            rows = [Feed(t, start + i, 0, start + i == last) for i, t in enumerate(part)]
            logits = self.decode(rows)
            self._held += part
            if len(self._held) == shared:
                self._save()
        self._seen = logits[0].copy()
        return self._seen

    def _keep(self, wanted: list[int], limit: int) -> int:
        """Cut sequence 0 back to the portions it has in common with a prompt; return its length."""
        keep = 0
        limit = min(len(self._held), limit)
        while keep < limit and self._held[keep] == wanted[keep]:
            keep += 1
        keep -= keep % PORTION
        if not self._lib.llama_memory_seq_rm(self._memory, 0, keep, -1):
            keep = 0  # a recurrent state cannot be cut back
            self._lib.llama_memory_clear(self._memory, False)
        self._held, self._seen = wanted[:keep], None
        return keep

    def _restore(self, tokens: list[int]) -> bool:
        """Whether a kept state now stands in for the evaluation of these tokens."""
        state = self._kept.read(tokens) if self._kept else None
        if state is None:
            return False
        self._held = []
        self._lib.llama_memory_clear(self._memory, False)
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if not self._lib.llama_state_seq_set_data(self._ctx, buffer, len(state), 0):
            self._lib.llama_memory_clear(self._memory, False)
            return False
        self._held = tokens
        return True

    def _save(self) -> None:
        """Keep the state of sequence 0 as it is now."""
        if self._kept is None:
            return
        size = self._lib.llama_state_seq_get_size(self._ctx, 0)
        buffer = (ctypes.c_uint8 * size)()
        written = self._lib.llama_state_seq_get_data(self._ctx, buffer, size, 0)
        if written == size:
            self._kept.write(self._held, bytes(buffer))

    def fork(self, sequence: int) -> None:
        """Let a branch continue from the prompt; its cells are shared, not copied."""
        self.drop(sequence)
        self._lib.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)

    def drop(self, sequence: int) -> None:
        """Free what a branch alone holds."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def release(self) -> None:
        """Free what all branches hold, whatever became of those who made them."""
        self._lib.llama_memory_seq_keep(self._memory, 0)

    def decode(self, rows: Sequence[Feed]) -> Float2d:
        """Evaluate at most ``n_batch`` tokens in one go.

        Returns
        -------
        Float2d
            Shape ``(number of rows with logits, n_vocab)``, float32, in the order of the rows;
            llama.cpp's own memory, which the next evaluation writes over: copy what must stay.

        Raises
        ------
        BackendError
            If llama.cpp refuses; the cache is then emptied, so that the next call is sound.
        """
        self.check_open()
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, row in enumerate(rows):
            batch.token[i] = row.token
            batch.pos[i] = row.position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = row.sequence
            batch.logits[i] = row.logits
        status = self._lib.llama_decode(self._ctx, batch)
        if status != 0:
            self.forget()
            raise BackendError(
                f"llama.cpp could not evaluate {len(rows)} tokens: got status {status}; expected "
                "0. Try again, with fewer candidates if it persists."
            )
        count = sum(row.logits for row in rows)
        if not count:
            return np.empty((0, self.n_vocab), dtype=np.float32)
        source = self._lib.llama_get_logits(self._ctx)
        return np.ctypeslib.as_array(source, shape=(count, self.n_vocab))

    def branches(self, paths: Sequence[Sequence[int]]) -> Float2d:
        """Evaluate several continuations of the prompt, each by itself, and forget them again.

        Returns
        -------
        Float2d
            Shape ``(len(paths), n_vocab)``: logits after each path.
        """
        out: list[Float2d] = []
        at = len(self._held)
        start = 0
        while start < len(paths):
            room = min(self._n_batch, self.n_ctx - at)
            rows: list[Feed] = []
            stop = start
            while stop < len(paths) and stop - start < self.slots:
                path = paths[stop]
                if len(rows) + len(path) > room:
                    break
                self.fork(stop - start + 1)
                rows += [
                    Feed(token, at + i, stop - start + 1, i == len(path) - 1)
                    for i, token in enumerate(path)
                ]
                stop += 1
            if stop == start:
                raise ContextLengthError(
                    f"An allowed answer of {len(paths[start])} tokens does not fit: room is "
                    f"{room}. Shorten the query, or show fewer records."
                )
            try:
                out.append(self.decode(rows).copy())
            finally:
                self.release()
            start = stop
        return np.concatenate(out)

    def forget(self) -> None:
        """Empty the cache: nothing of an earlier prompt stays in memory's reach."""
        self._held, self._seen = [], None
        if self._ctx is not None:
            self._lib.llama_memory_clear(self._memory, True)

    def close(self) -> None:
        """Free model and context; calling it twice is harmless."""
        if self._ctx is not None:
            self._lib.llama_batch_free(self._batch)
            self._lib.llama_free(self._ctx)
            self._ctx = None
        if self._model:
            self._lib.llama_model_free(self._model)
            self._model = None
        self._held, self._seen = [], None
