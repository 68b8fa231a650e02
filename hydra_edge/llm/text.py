"""An answer as it arrives: pieces in, readable text out, ended at the first stop string.

Every backend streams through here, so that all agree on where an answer begins (leading
white space is dropped before a stop is looked for) and ends. Knows nothing of models.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence


def well_formed(text: str) -> str:
    """Return a text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


class AnswerText:
    """One growing answer.

    ``on_text`` is told of each new part as soon as no stop string and no trailing white space
    can still take it back: the parts put together are exactly ``text``.
    """

    def __init__(self, stop: Sequence[str], on_text: Callable[[str], None] | None = None) -> None:
        self.stopped = False
        self._stop = tuple(s for s in stop if s)
        self._on_text = on_text
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._raw = ""
        self._told = 0

    @property
    def text(self) -> str:
        """The answer so far, stripped; a character whose bytes are incomplete is left out."""
        return self._raw.strip()

    def feed_bytes(self, piece: bytes) -> None:
        """Add the bytes of one token, which may end in the middle of a character."""
        self.feed(self._decode(piece))

    def feed(self, piece: str) -> None:
        """Add text; once ``stopped``, whatever comes later is ignored."""
        if self.stopped or not piece:
            return
        searched = max(0, len(self._raw) - max(map(len, self._stop), default=0))
        raw = (self._raw + piece).lstrip() if not self._raw else self._raw + piece
        ends = [end for s in self._stop if (end := raw.find(s, searched)) >= 0]
        if ends:
            raw, self.stopped = raw[: min(ends)], True
        self._raw = raw
        self._tell(len(raw) if self.stopped else len(raw) - self._doubtful(raw))

    def finish(self) -> str:
        """Say that nothing more will come; return the answer."""
        self.stopped = True
        self._tell(len(self._raw))
        return self.text

    def _doubtful(self, raw: str) -> int:
        """Length of the longest end of ``raw`` that may be the beginning of a stop string."""
        for size in range(max(map(len, self._stop), default=1) - 1, 0, -1):
            if any(s.startswith(raw[-size:]) for s in self._stop if len(s) > size):
                return size
        return 0

    def _tell(self, safe: int) -> None:
        if self._on_text is None:
            return
        end = len(self._raw[:safe].rstrip())
        if end > self._told:
            self._on_text(self._raw[self._told : end])
            self._told = end
