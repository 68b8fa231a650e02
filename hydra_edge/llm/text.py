"""An answer as it arrives: pieces in, readable text out, ended at the first stop string.

Every backend streams through here, so that all agree on where an answer begins (leading
white space, and what a model thinks aloud, is dropped before a stop is looked for) and ends.
Knows nothing of models.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from hydra_edge.llm.thoughts import THOUGHTS, Marks


def well_formed(text: str) -> str:
    """Return a text that can be encoded: lone surrogates become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


class AnswerText:
    """One growing answer.

    ``on_text`` is told of each new part as soon as no stop string and no trailing white space
    can still take it back: the parts put together are exactly ``text``. ``thinks`` says that all
    there is so far is a thought without an end; ``thought`` that there was one, and is also set by
    whoever gets thoughts apart from the text. Behind ``longest`` characters an answer is cut off,
    where that is given: ``stopped`` and ``too_long``. ``marks`` are those of thoughts, which may
    hold any stop string.
    """

    def __init__(
        self,
        stop: Sequence[str],
        on_text: Callable[[str], None] | None = None,
        *,
        longest: int | None = None,
        marks: Sequence[Marks] = THOUGHTS,
    ) -> None:
        self.stopped = False
        self.too_long = False
        self.thinks = False
        self.thought = False
        self._stop = tuple(s for s in stop if s)
        self._on_text = on_text
        self._longest = longest
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._raw = ""
        self._marks = tuple(marks)
        self._around: Marks | None = None  # of the thought that there is
        self._opening: str | None = ""  # what may be (of) a thought; None once that is behind
        self._told = 0

    @property
    def text(self) -> str:
        """The answer so far, stripped; a character whose bytes are incomplete is left out."""
        return "" if self.thinks else (self._raw or self._opening or "").strip()

    def feed_bytes(self, piece: bytes) -> None:
        """Add the bytes of one token, which may end in the middle of a character."""
        self.feed(self._decode(piece))

    def feed(self, piece: str) -> None:
        """Add text; once ``stopped``, whatever comes later is ignored."""
        if self.stopped or not piece:
            return
        if self._opening is not None:
            piece = self._behind_thought(self._opening + piece)
        self._add(piece)

    def _behind_thought(self, opening: str) -> str:
        """Return what of an answer's beginning is answer; keep what is not known to be."""
        if self._around is None:
            opening = opening.lstrip()
            if any(
                len(opening) < len(m.begin) and m.begin.startswith(opening) for m in self._marks
            ):
                self._opening = opening
                return ""
            self._around = next((m for m in self._marks if opening.startswith(m.begin)), None)
            self.thinks = self._around is not None
        if self._around is not None and self.thinks:
            _, end, answer = opening.partition(self._around.end)
            if not end:
                self._opening = opening[1 - len(self._around.end) :]  # the end may be cut in two
                return ""
            opening, self.thinks, self.thought = answer, False, True
        return self._bare(opening)

    def _bare(self, answer: str) -> str:
        """Return an answer without what encloses it behind a thought; keep what may be of that."""
        first, last = ("", "") if self._around is None else self._around.around
        begun = answer.lstrip()
        if len(begun) < len(first) and first.startswith(begun):
            self._opening = begun
            return ""
        if first and begun.startswith(first):
            self._stop += (last,)
            answer = begun[len(first) :]
        self._opening = None
        return answer

    def _add(self, piece: str) -> None:
        searched = max(0, len(self._raw) - max(map(len, self._stop), default=0))
        raw = (self._raw + piece).lstrip() if not self._raw else self._raw + piece
        ends = [end for s in self._stop if (end := raw.find(s, searched)) >= 0]
        if ends:
            raw, self.stopped = raw[: min(ends)], True
        if self._longest is not None and len(raw) > self._longest:
            raw, self.stopped, self.too_long = raw[: self._longest], True, True
        self._raw = raw
        self._tell(len(raw) if self.stopped else len(raw) - self._doubtful(raw))

    def finish(self) -> str:
        """Say that nothing more will come; return the answer."""
        opening, self._opening = self._opening, None
        if opening and not self.thinks:
            self._add(opening)
        self.stopped = True
        self._tell(len(self._raw))
        return self.text

    def _doubtful(self, raw: str) -> int:
        """Length of the longest end of ``raw`` that may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        for size in range(min(longest, len(raw)), 0, -1):
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
