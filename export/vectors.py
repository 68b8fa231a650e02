"""An encoder with a memory: while a base is built, no text is embedded twice.

The memory is one file that outlives the build. Vectors are kept as float16, as on a device; a
file made with another encoder is not looked at.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hydra_edge.bundle import Bundle
from hydra_edge.encoder import TextEncoder
from hydra_edge.privatefiles import replacing_path
from hydra_edge.types import Float2d, Progress, text_hash

SAVE_EVERY = 8192  # new texts, about a minute of computing: what a crash can cost at most
_BATCH = 256


def encoder_key(bundle: Bundle) -> str:
    """Name what decides a vector: the graph, the tokenizer, and how they are used."""
    manifest = bundle.manifest
    files = {p.name: manifest.files[p.name] for p in (bundle.encoder_path, bundle.tokenizer_path)}
    marks = [file.sha256 for _, file in sorted(files.items())]
    return text_hash("\x1f".join((*marks, manifest.pooling, str(manifest.max_tokens))))


class RememberingEncoder:
    """Vectors from memory first, from the inner encoder second (and then into memory).

    Parameters
    ----------
    inner
        Who embeds what is not known.
    path
        The ``.npz`` the memory is read from and saved to.
    key
        What the vectors depend on, see ``encoder_key``; a memory of another key is dropped.
    """

    def __init__(self, inner: TextEncoder, path: Path, *, key: str) -> None:
        self.inner = inner
        self.path = path
        self.key = key
        self._known = _read(path, key, inner.dim)
        self._unsaved = 0

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.inner.dim

    @property
    def base_id(self) -> str:
        """The base the vectors belong to."""
        return self.inner.base_id

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        """Return unit vectors, shape ``(n_texts, dim)``, float32, rounded to float16."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        keys = [bytes.fromhex(text_hash(text)) for text in texts]
        by_key = dict(zip(keys, texts, strict=True))
        missing = sorted(
            (k for k in by_key if k not in self._known), key=lambda k: (len(by_key[k]), k)
        )
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            rows = self.inner.encode([by_key[k] for k in batch]).astype(np.float16)
            self._known.update(zip(batch, rows, strict=True))
            self._unsaved += len(batch)
            if self._unsaved >= SAVE_EVERY:
                self.save()
            if progress is not None:
                progress("embed", start + len(batch), len(missing))
        return np.stack([self._known[k] for k in keys]).astype(np.float32)

    def save(self) -> None:
        """Write the memory to its file, whole or not at all."""
        if not self._unsaved:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        keys = sorted(self._known)
        with replacing_path(self.path) as new, new.open("wb") as stream:
            np.savez(
                stream,
                key=np.array(self.key),
                hashes=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 32),
                vectors=np.stack([self._known[k] for k in keys]),
            )
        self._unsaved = 0


def _read(path: Path, key: str, dim: int) -> dict[bytes, npt.NDArray[np.float16]]:
    """Read a memory; one that is missing, damaged or another encoder's is empty."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            if str(stored["key"]) != key or stored["vectors"].shape[1:] != (dim,):
                return {}
            hashes, vectors = stored["hashes"], stored["vectors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    return {row.tobytes(): vector for row, vector in zip(hashes, vectors, strict=True)}
