"""One answer while a model writes it: chooses each token, and knows when it is over.

Pure Python over logits and a vocabulary; holds no model.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from hydra_edge.llm.sampling import TOP_K, draw, log_total, top_tokens
from hydra_edge.llm.text import AnswerText, well_formed
from hydra_edge.types import Completion, Float1d

_SPARE = 64  # extra tokens looked at where some may not open an answer


class Vocabulary(Protocol):
    """What a token stands for."""

    def piece(self, token: int) -> bytes:
        """Return a token's bytes, which may be part of a character."""
        ...

    def is_end(self, token: int) -> bool:
        """Whether the model ends its turn with this token."""
        ...


class Draft:
    """One answer being written; ``rng`` None means greedily.

    ``finish`` is empty until the answer is over; ``tokens`` are those chosen so far;
    ``scratch``, of shape ``(n_vocab,)``, is written over at each step.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        rng: np.random.Generator | None,
        temperature: float,
        max_tokens: int,
        answer: AnswerText,
        scratch: Float1d | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._rng = rng
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._answer = answer
        self._scratch = scratch
        self._logprob = 0.0
        self.tokens: list[int] = []
        self.finish = ""

    def advance(self, logits: Float1d) -> None:
        """Choose the next token from its logits, shape ``(n_vocab,)``; may end the answer."""
        token = self._choose(logits)
        if token is None or self._vocabulary.is_end(token):
            self.finish = "stop"
            return
        self._logprob += float(logits[token]) - log_total(logits, self._scratch)
        self.tokens.append(token)
        self._answer.feed_bytes(self._vocabulary.piece(token))
        if self._answer.stopped:
            self.finish = "stop"
        elif len(self.tokens) >= self._max_tokens:
            self.finish = "length"

    def completion(self) -> Completion:
        """Return the finished answer."""
        return Completion(
            well_formed(self._answer.finish()),
            greedy=self._rng is None,
            tokens=len(self.tokens),
            logprob=self._logprob / max(1, len(self.tokens)),
            finish=self.finish,
        )

    def _choose(self, logits: Float1d) -> int | None:
        if self._answer.text or self._answer.thinks:
            if self._rng is None:
                return int(logits.argmax())
            best = top_tokens(logits, TOP_K)
        else:
            # Nothing to read yet: an ending here would leave an empty answer.
            wide = top_tokens(logits, TOP_K + _SPARE)
            best = wide[[self._opens(int(token)) for token in wide]][:TOP_K]
            if not len(best):
                return None
        return int(best[draw(logits[best], self._temperature, self._rng)])

    def _opens(self, token: int) -> bool:
        """Whether an answer that has no text yet may go on with this token."""
        if self._vocabulary.is_end(token):
            return False
        piece = self._vocabulary.piece(token).decode("utf-8", "replace")
        if not piece.strip():
            # One blank may come before a word that has no token with its own blank.
            may_wait = not self.tokens and self._max_tokens > 1
            return may_wait and piece != "" and "\n" not in piece
        return "\n" not in piece[: len(piece) - len(piece.lstrip())]
