"""Texts to unit vectors through the user's cache: no text is ever encoded twice for one base."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from hydra_edge.encoder import Encoder, TextEncoder
from hydra_edge.errors import StoreError
from hydra_edge.store import Store
from hydra_edge.types import Float2d, Half1d, Progress, text_hash

# What is encoded between two writes to the cache: so many texts, or fewer long ones, of which
# only the beginning is read. A second's work at most: it is what a crash or Ctrl-C can cost, and
# how long whoever wants it stopped has to wait.
CHUNK = 256
_CHUNK_LETTERS = 16_384
_READ_LETTERS = 1_024
# Texts of which no vector is stored (queries, candidates) whose vectors stay in memory.
PASSING = 512
_LATIN = re.compile(r"[A-Za-z]")  # of which an encoder knows every letter


def _portion(texts: list[str]) -> list[str]:
    """Return the first texts, as many as are encoded between two writes."""
    letters = np.cumsum([min(len(text), _READ_LETTERS) for text in texts])
    return texts[: max(1, int(np.searchsorted(letters, _CHUNK_LETTERS, side="right")))]


class CachedEncoder:
    """An encoder that remembers, in the user's store, by text hash and ``base_id``.

    Vectors pass through float16 whether they come from the cache or not, so that a head is
    fitted on exactly what it will be used with.

    Parameters
    ----------
    encoder, store
        What encodes, and the user's file.
    check
        Called before each portion of texts is encoded; what it raises ends the work. Vectors made
        by then are kept.
    """

    def __init__(
        self, encoder: TextEncoder, store: Store, check: Callable[[], None] | None = None
    ) -> None:
        self.encoder = encoder
        self.store = store
        self._check = check
        self.embedded = 0
        self.reused = 0
        self._passing: dict[str, Half1d] = {}
        # How often records had been rewritten before any text that is asked for was read.
        self._as_read = store.revision().rewrites
        self._fitting = False

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return self.encoder.dim

    @property
    def base_id(self) -> str:
        """The base the vectors belong to."""
        return self.encoder.base_id

    def unread(self, texts: Sequence[str]) -> int:
        """Count the texts of whose words a base's encoder knows less than half."""
        encoder = self.encoder
        if not isinstance(encoder, Encoder):
            return 0
        foreign = [t for t in texts if not _LATIN.search(t) and any(map(str.isalpha, t))]
        return sum(not encoder.knows_words_of(text) for text in foreign)

    @contextmanager
    def fitting(self, as_read: int) -> Iterator[None]:
        """Within, keep vectors only while records are as they were after so many rewrites.

        Once they are not, what would keep one raises StoreError: the fit is to begin anew. A
        cache that cannot be written raises it too.
        """
        before = self._as_read, self._fitting
        self._as_read, self._fitting = as_read, True
        try:
            yield
        finally:
            self._as_read, self._fitting = before

    def encode(
        self, texts: Sequence[str], *, keep: bool = True, progress: Progress | None = None
    ) -> Float2d:
        """Return the unit vectors of texts.

        Parameters
        ----------
        texts
            Any number; repeated texts cost nothing.
        keep
            Whether new vectors are written to the cache (a passing query's are not). Those of a
            text that may have been forgotten meanwhile never are.
        progress
            Told after every portion, as ``("embed", texts done, texts not cached)``; what it
            raises ends the work.

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
        missing = self._recollect(texts, place, out, keep=keep)
        # Longest first: a progress bar that speeds up, and batches of like length.
        missing.sort(key=lambda key: len(texts[place[key]]), reverse=True)
        done = 0
        while done < len(missing):
            # Within a fit its own progress ends it: what was paid for is still fitted on.
            if self._check is not None and not self._fitting:
                self._check()
            rows = [place[key] for key in missing[done : done + CHUNK]]
            part = _portion([texts[row] for row in rows])
            rows = rows[: len(part)]
            encoded = self.encoder.encode(part).astype(np.float16)
            self._remember(part, encoded, keep=keep)
            out[rows] = encoded
            self.embedded += len(part)
            done += len(part)
            if progress is not None:
                progress("embed", done, len(missing))
        if len(place) < len(texts):
            repeats = [row for row, known in enumerate(first) if known != row]
            out[repeats] = out[[first[row] for row in repeats]]
        return out

    def _recollect(
        self, texts: Sequence[str], place: dict[str, int], out: Float2d, *, keep: bool
    ) -> list[str]:
        """Fill in the vectors there are; return the hashes of the others."""
        found = self.store.fill_vectors(out, place, self.base_id)
        known = place.keys() & self._passing.keys()
        passing = {key: self._passing[key] for key in known if not found[place[key]]}
        if passing and keep:
            self._keep({texts[place[key]]: vector for key, vector in passing.items()})
        for key, vector in passing.items():
            out[place[key]] = vector
            found[place[key]] = True
        missing = [key for key, row in place.items() if not found[row]]
        self.reused += len(place) - len(missing)
        return missing

    def _remember(
        self, texts: Sequence[str], fresh: npt.NDArray[np.float16], *, keep: bool
    ) -> None:
        if keep:
            self._keep(dict(zip(texts, fresh, strict=True)))
            return
        self._passing |= dict(zip(map(text_hash, texts), fresh, strict=True))
        while len(self._passing) > PASSING:
            self._passing.pop(next(iter(self._passing)))

    def _keep(self, vectors: dict[str, Half1d]) -> None:
        """Write vectors to the cache, by text, but none of what may have been forgotten.

        A cache that cannot be written costs time, not the answer: only a fit, which has its heads
        to write, is told of it.
        """
        try:
            self._write(vectors)
        except StoreError:
            if self._fitting:
                raise

    def _write(self, vectors: dict[str, Half1d]) -> None:
        by_hash = {text_hash(text): vector for text, vector in vectors.items()}
        if self.store.put_vectors(self.base_id, by_hash, rewrites=self._as_read):
            return
        if self._fitting:
            raise StoreError(
                "The fit was given up: got records that were rewritten or forgotten while it "
                "read them; expected them as they were. Fit again when that is done."
            )
        now, known = self.store.texts_in_use(vectors)
        still = {text_hash(text): vectors[text] for text in known}
        self.store.put_vectors(self.base_id, still, rewrites=now)
