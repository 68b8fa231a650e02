"""Texts to unit vectors with a base's int8 encoder, on the CPU.

Owns tokenization, batching, pooling and the ONNX Runtime session; tokenizer and session are
imported and loaded at the first text, not before. It keeps no vector (``vectors.py`` does) and
knows nothing of users.

A text's vector does not depend on the texts encoded with it: the graph quantizes each token on
its own scale, and padding is masked. It may therefore be cached and compared for good.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from hydra_edge.bundle import Bundle
from hydra_edge.errors import BundleError, ShapeError
from hydra_edge.types import Float2d, Int1d, Progress

# Padded tokens in one run of the graph: larger batches fall out of the cache and take longer.
TOKEN_BUDGET = 512
# A batch is closed where padding would waste more than this share of it, unless the waste is
# less than what starting another run costs (about as much as 16 tokens).
_PADDING_SHARE = 0.15
_RUN_COST = 16
# Texts tokenized at once: bounds the memory of a long history.
_CHUNK = 2048
# Read at most this much text for each token wanted: English has about 4.5, code 3.
_CHARS_PER_TOKEN = 16
# More threads than this gain little on graphs of this size, and take cores from the LLM.
_MAX_THREADS = 4
# Encoders kept for who asks next: the one in use, and the one of a base just changed from.
_MOST_SHARED = 2


@runtime_checkable
class TextEncoder(Protocol):
    """Anything that turns texts into unit vectors of one base."""

    @property
    def dim(self) -> int:
        """Width of a vector."""
        ...

    @property
    def base_id(self) -> str:
        """The base the vectors belong to; those of different bases must not be mixed."""
        ...

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Return unit vectors, shape ``(n_texts, dim)``, float32, in the order of ``texts``."""
        ...


def plan_batches(lengths: Sequence[int], *, budget: int = TOKEN_BUDGET) -> list[Int1d]:
    """Group texts of like length, so that little is computed on padding.

    Parameters
    ----------
    lengths
        Tokens of each text.
    budget
        Most tokens of a batch, padding included; a longer text gets a batch of its own.

    Returns
    -------
    list of Int1d
        Indices into ``lengths``, each exactly once, shortest texts first.
    """
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    batches: list[Int1d] = []
    start = real = 0
    for end, index in enumerate(order):
        # In ascending order the newest text is the longest: all are padded to its length.
        padded = (end + 1 - start) * lengths[index]
        waste = padded - real - lengths[index]
        if end > start and (padded > budget or waste > max(_RUN_COST, _PADDING_SHARE * padded)):
            batches.append(order[start:end])
            start, real = end, 0
        real += lengths[index]
    if len(order):
        batches.append(order[start:])
    return batches


def real_token_share(lengths: Sequence[int], batches: Sequence[Int1d]) -> float:
    """Return which share of all computed tokens is text, in (0, 1]; the rest is padding."""
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return sum(lengths) / padded if padded else 1.0


class Encoder:
    """The encoder of a base; safe to use from several threads.

    Parameters
    ----------
    bundle
        A verified base.
    threads
        Threads of one run; 0 for as many as this process may use, up to 4.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 0) -> None:
        self.bundle = bundle
        self.threads = threads
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._session: Any = None
        self._inputs: frozenset[str] = frozenset()  # what the graph asks for

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.bundle.manifest.dim

    @property
    def base_id(self) -> str:
        """The base the vectors belong to."""
        return self.bundle.base_id

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Encode texts; equal texts are computed once.

        Parameters
        ----------
        texts
            Any number, any length. Only the first ``max_tokens`` tokens of a text count. An
            empty text has a vector too: that of the model's two frame tokens.
        progress
            Told after every batch, as ``("encode", texts done, distinct texts)``.

        Returns
        -------
        Float2d
            Shape ``(n_texts, dim)``, float32, rows of unit norm, in the order of ``texts``.

        Raises
        ------
        ShapeError
            If ``texts`` is a single text.
        BundleError
            If the base's encoder cannot be run, or does not give finite vectors.
        """
        if isinstance(texts, str):
            raise ShapeError("encode: got one text; expected a sequence. Put it into a list.")
        rows: dict[str, int] = {}
        index = [rows.setdefault(text, len(rows)) for text in texts]
        distinct = list(rows)
        vectors = np.empty((len(distinct), self.dim), dtype=np.float32)
        done = 0
        for start in range(0, len(distinct), _CHUNK):
            tokens = self.tokenize(distinct[start : start + _CHUNK])
            for batch in plan_batches([len(ids) for ids in tokens]):
                vectors[start + batch] = self._run([tokens[i] for i in batch])
                done += len(batch)
                if progress is not None:
                    progress("encode", done, len(distinct))
        return vectors[index] if len(index) != len(distinct) else vectors

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids the model sees of each text, its two frame tokens included."""
        self._load()
        limit = self.bundle.manifest.max_tokens
        short = [_shorten(text, limit) for text in texts]
        if len(short) == 1:  # a query: waking the tokenizer's threads takes longer than it does
            return [self._tokenizer.encode(short[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(short)]

    def knows_words_of(self, text: str) -> bool:
        """Tell whether the model knows half of a text's words: of some scripts it knows few."""
        (ids,) = self.tokenize([text])
        tokens = [self._tokenizer.id_to_token(i) for i in ids]
        return sum(map(str.isalpha, tokens)) >= tokens.count("[UNK]")  # a word begins without ##

    def _run(self, tokens: Sequence[Sequence[int]]) -> Float2d:
        """Encode one batch: shape ``(n, dim)``, unit rows."""
        ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, row_ids in enumerate(tokens):
            ids[row, : len(row_ids)] = row_ids
            mask[row, : len(row_ids)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        try:
            hidden = self._session.run(None, {name: feed[name] for name in self._inputs})[0]
        except Exception as err:  # onnxruntime's errors share no public base class
            raise self._cannot("run", err) from err
        if hidden.shape != (*ids.shape, self.dim):
            raise self._cannot("use", f"it gives shape {hidden.shape} for {(*ids.shape, self.dim)}")
        # Mean over the text's own tokens. The norm is taken in double precision, and a mean of
        # zero (no trained model has one) is caught below as not finite.
        pooled = np.matmul(mask[:, None].astype(np.float32), hidden)[:, 0].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            unit = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        if not np.isfinite(unit).all():
            raise self._cannot("use", "its vectors are not finite")
        return np.asarray(unit, dtype=np.float32)

    def _load(self) -> None:
        """Load tokenizer and session once, whichever thread comes first."""
        with self._lock:
            if self._session is None:
                self._tokenizer = self._load_tokenizer()
                self._session = self._load_session()

    def _load_tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        path = self.bundle.tokenizer_path
        try:
            tokenizer = Tokenizer.from_file(str(path))
            tokenizer.no_padding()
            tokenizer.enable_truncation(self.bundle.manifest.max_tokens)
        except Exception as err:  # tokenizers raises plain Exception
            raise BundleError(
                f"{path} cannot be loaded: {err}; expected a tokenizer of the tokenizers library. "
                "Get the base again from where it came from."
            ) from err
        return tokenizer

    def _load_session(self) -> Any:
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or min(_MAX_THREADS, _usable_cores())
        # Idle threads must not spin: the LLM runs on the same cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The graph was optimized when it was made; fusing further at load costs start-up time,
        # and the runtime's fused skip-and-normalize is slower than its two parts.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3  # errors only: warnings would go to the user's stderr
        try:
            session = onnxruntime.InferenceSession(
                str(self.bundle.encoder_path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:  # onnxruntime's errors share no public base class
            raise self._cannot("load", err) from err
        known = {"input_ids", "attention_mask", "token_type_ids"}
        self._inputs = frozenset(entry.name for entry in session.get_inputs())
        if not self._inputs <= known:
            raise self._cannot("use", f"it wants inputs {sorted(self._inputs - known)}")
        return session

    def _cannot(self, what: str, reason: object) -> BundleError:
        return BundleError(
            f"Cannot {what} {self.bundle.encoder_path}: {reason}; expected an encoder of width "
            f"{self.dim}. Get the base again from where it came from."
        )


_shared: dict[tuple[Path, str, int], Encoder] = {}  # the one asked for last at the end
_sharing = threading.Lock()


def shared_encoder(bundle: Bundle, *, threads: int = 0) -> Encoder:
    """Return the process's encoder of a base, which is nobody's to close.

    Not all memory of a session goes back to the system when it is freed: a program that opened
    one after another, in threads of its own, would grow with each.
    """
    key = (bundle.path, bundle.base_id, threads)
    with _sharing:
        encoder = _shared.pop(key) if key in _shared else Encoder(bundle, threads=threads)
        _shared[key] = encoder
        if len(_shared) > _MOST_SHARED:
            del _shared[next(iter(_shared))]
    return encoder


def _share_anew() -> None:
    """Begin without shared encoders in a forked child, and never free those of its parent.

    The threads of their sessions are not in the child: it would wait for them for ever, at the
    latest when it ends.
    """
    _sharing.release()
    if _shared:
        import ctypes

        for encoder in _shared.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(encoder))
        _shared.clear()


if hasattr(os, "register_at_fork"):  # no other thread is to hold the lock in a child
    os.register_at_fork(
        before=_sharing.acquire, after_in_parent=_sharing.release, after_in_child=_share_anew
    )


def import_onnxruntime() -> Any:
    """Import ONNX Runtime with its telemetry off; nothing of ours imports it otherwise.

    Some of its wheels report to their maker from the import on, and keep files for that in the
    user's cache. Only a variable of the environment that is set before the first import prevents
    both. It stays set, so that child processes report nothing either.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    # All that is left to do where the program we run in imported it before us.
    if (disable := getattr(onnxruntime, "disable_telemetry_events", None)) is not None:
        disable()
    return onnxruntime


def _shorten(text: str, max_tokens: int) -> str:
    """Cut a text to what its first tokens can need, so that a huge one costs no more."""
    limit = max_tokens * _CHARS_PER_TOKEN
    if len(text) > limit:
        # Runs of white space hold no token: they must not crowd out the words behind them.
        text = " ".join(text.split(None, max_tokens)[:max_tokens])[:limit]
    if text.isascii():
        return text
    # Half a surrogate pair is no character: the tokenizer refuses it, so it becomes "?".
    return text.encode("utf-8", "replace").decode("utf-8")


def _usable_cores() -> int:
    """Count the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1
