"""Texts to unit vectors through the user's cache: no text is ever encoded twice for one base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hydra_edge.encoder import TextEncoder
from hydra_edge.store import Store
from hydra_edge.types import Float2d, Progress, text_hash

# Texts encoded between two writes to the cache: what a crash or Ctrl-C can cost at most.
CHUNK = 256
# Vectors read from the cache at once: bounds the memory a long history takes in passing.
READ = 4096
# Texts of which no vector is stored (queries, candidates) whose vectors stay in memory.
PASSING = 512
Half1d = npt.NDArray[np.float16]


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
        self._passing: dict[str, Half1d] = {}

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
        place: dict[str, int] = {}
        first = [place.setdefault(key, row) for row, key in enumerate(hashes)]
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        missing = self._recollect(place, out, keep=keep)
        # Longest first: a progress bar that speeds up, and batches of like length.
        missing.sort(key=lambda key: len(texts[place[key]]), reverse=True)
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            rows = [place[key] for key in chunk]
            encoded = self.encoder.encode([texts[row] for row in rows]).astype(np.float16)
            self._remember(dict(zip(chunk, encoded, strict=True)), keep=keep)
            out[rows] = encoded
            self.embedded += len(chunk)
            if progress is not None:
                progress("embed", start + len(chunk), len(missing))
        if len(place) < len(texts):
            repeats = [row for row, known in enumerate(first) if known != row]
            out[repeats] = out[[first[row] for row in repeats]]
        return out

    def _recollect(self, place: dict[str, int], out: Float2d, *, keep: bool) -> list[str]:
        """Fill in the vectors there are; return the hashes of the others."""
        missing: list[str] = []
        keys = list(place)
        for start in range(0, len(keys), READ):
            part = keys[start : start + READ]
            known = self.store.vectors(part, self.base_id)
            passing = {
                key: self._passing[key] for key in part if key in self._passing and key not in known
            }
            if passing and keep:
                self.store.put_vectors(self.base_id, passing)
            known |= passing
            if known:
                out[[place[key] for key in known]] = np.stack(list(known.values()))
            self.reused += len(known)
            missing += [key for key in part if key not in known]
        return missing

    def _remember(self, fresh: dict[str, Half1d], *, keep: bool) -> None:
        if keep:
            self.store.put_vectors(self.base_id, fresh)
            return
        self._passing |= fresh
        while len(self._passing) > PASSING:
            self._passing.pop(next(iter(self._passing)))
