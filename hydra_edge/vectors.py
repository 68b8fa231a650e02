"""Texts to unit vectors through the user's cache: no text is ever encoded twice for one base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hydra_edge.encoder import TextEncoder
from hydra_edge.store import Store
from hydra_edge.types import Float2d, Progress, text_hash

# Texts encoded between two writes to the cache: what a crash or Ctrl-C can cost at most.
CHUNK = 256


class CachedEncoder:
    """An encoder that remembers, in the user's store, by text hash and ``base_id``.

    Vectors pass through float16 whether they come from the cache or not, so that a head is
    fitted on exactly what it will be used with.
    """

    def __init__(self, encoder: TextEncoder, store: Store) -> None:
        self.encoder = encoder
        self.store = store
        self.embedded = 0
        self.reused = 0

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.encoder.dim

    @property
    def base_id(self) -> str:
        """The base the vectors belong to."""
        return self.encoder.base_id

    def encode(
        self, texts: Sequence[str], *, keep: bool = True, progress: Progress | None = None
    ) -> Float2d:
        """Return the unit vectors of texts.

        Parameters
        ----------
        texts
            Any number; repeated texts cost nothing.
        keep
            Whether new vectors are written to the cache (a passing query's are not).

        Returns
        -------
        Float2d
            Shape ``(n_texts, dim)``, float32, rows of unit norm up to float16 rounding.
        """
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        hashes = [text_hash(text) for text in texts]
        by_hash = dict(zip(hashes, texts, strict=True))
        known = self.store.vectors(list(by_hash), self.base_id)
        missing = [h for h in by_hash if h not in known]
        self.reused += len(known)
        # Longest first: a progress bar that speeds up, and batches of like length.
        missing.sort(key=lambda h: len(by_hash[h]), reverse=True)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            encoded = self.encoder.encode([by_hash[h] for h in chunk]).astype(np.float16)
            fresh = dict(zip(chunk, encoded, strict=True))
            if keep:
                self.store.put_vectors(self.base_id, fresh)
            known.update(fresh)
            self.embedded += len(chunk)
            if progress is not None:
                progress("embed", start + len(chunk), len(missing))
        return np.stack([known[h] for h in hashes]).astype(np.float32)
