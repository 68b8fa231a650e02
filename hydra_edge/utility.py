"""Utility: agreement of an answer with what the user really wrote, in [0, 1].

Also the word-level comparisons that features share with it. ROUGE here follows Lin (2004)
without stemming; on ASCII text it equals the ``rouge-score`` package (tested).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hydra_edge.spelling import fold_label, number
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float2d

# Scripts without spaces between words: CJK and kana; Thai, Lao, Burmese, Khmer.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_SOUTH_EAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# One token: a letter of such a script by itself, else a run of letters and digits. It is compiled
# (for 4 ms) by the first text that needs it.
_WORD = rf"[{_CJK}]|(?=\w)[{_SOUTH_EAST}]|[^\W_{_CJK}{_SOUTH_EAST}]+"
# ASCII is split several times faster by blanking out what is no letter or digit.
_BLANKED = "".join(chr(i) if chr(i).isalnum() else " " for i in range(128))
# Longer texts are compared by their opening: ROUGE-L is quadratic in the worst case.
MAX_TOKENS = 2000


def is_mark(letter: str) -> bool:
    """Tell whether a character is part of the letter before it: an accent, a vowel sign.

    Those that make an emoji of a character, or put a frame around it, are not.
    """
    if unicodedata.category(letter) not in {"Mn", "Mc"}:
        return False
    return "VARIATION SELECTOR" not in unicodedata.name(letter, "")


def _words(text: str) -> list[str]:
    """Split a text beyond ASCII; the marks of letters stay with them."""
    text = unicodedata.normalize("NFC", text)
    marks = {letter for letter in set(text) if is_mark(letter)}
    if not marks:
        return re.findall(_WORD, text)
    # A class of all marks would take longer to compile than it takes to look past them.
    letters = [i for i, letter in enumerate(text) if letter not in marks]
    plain = "".join([text[i] for i in letters])
    letters.append(len(text))
    found = re.finditer(_WORD, plain)
    return [text[letters[word.start()] : letters[word.end()]] for word in found]


def tokens(text: str, limit: int | None = MAX_TOKENS) -> list[str]:
    """Split a text into lower-case words (text without spaces into letters), at most ``limit``."""
    head = text if limit is None else text[: limit * 20]
    if head.isascii():
        return head.lower().translate(_BLANKED).split()[:limit]
    return _words(head.lower())[:limit]


def _f1(overlap: int, n_a: int, n_b: int) -> float:
    return 2.0 * overlap / (n_a + n_b) if overlap else 0.0


def lcs_length(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, bit-parallel (Hyyrö 2004)."""
    if not a or not b:
        return 0
    positions: dict[str, int] = {}
    for i, word in enumerate(a):
        positions[word] = positions.get(word, 0) | (1 << i)
    mask = (1 << len(a)) - 1
    row = mask
    for word in b:
        matches = row & positions.get(word, 0)
        row = ((row + matches) | (row - matches)) & mask
    return len(a) - row.bit_count()


def token_agreement(a: Sequence[str], b: Sequence[str]) -> float:
    """(ROUGE-1 F + ROUGE-L F) / 2 of two token lists, in [0, 1]."""
    common = Counter(a) & Counter(b)
    rouge_1 = _f1(common.total(), len(a), len(b))
    return (rouge_1 + _f1(lcs_length(a, b), len(a), len(b))) / 2.0 if rouge_1 else 0.0


def text_agreement(a: str, b: str) -> float:
    """(ROUGE-1 F + ROUGE-L F) / 2 of two texts; texts without any word are compared exactly."""
    words_a, words_b = tokens(a), tokens(b)
    if not words_a or not words_b:
        return float(a.strip() == b.strip() and bool(a.strip()))
    return token_agreement(words_a, words_b)


def label_agreement(a: str, b: str) -> float:
    """1.0 where two labels are the same but for case, outer space and Unicode form."""
    return float(fold_label(a) == fold_label(b))


def rating_agreement(a: str, b: str, span: float) -> float:
    """1 - abs(error) / range; 0.0 where either is not a number."""
    x, y = number(a), number(b)
    if x is None or y is None:
        return 0.0
    return max(0.0, 1.0 - abs(x - y) / span)


def utility(answer: str, truth: str, task: TaskSpec) -> float:
    """Return the agreement of an answer with the truth by the task's kind, in [0, 1]."""
    if task.kind == "label":
        return label_agreement(answer, truth)
    if task.kind == "rating":
        return rating_agreement(answer, truth, task.span)
    return text_agreement(answer, truth)


def agreement_matrix(answers: Sequence[str], task: TaskSpec) -> Float2d:
    """Compare every answer with every other.

    Returns
    -------
    Float2d
        Shape ``(n, n)``, float32, symmetric, range ``[0, 1]``, ones on the diagonal.
    """
    n = len(answers)
    if task.kind == "label":
        keys = [fold_label(a) for a in answers]
        names = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        which = np.array([names[key] for key in keys], dtype=np.int64)
        return np.asarray(which[:, None] == which, dtype=np.float32)
    if task.kind == "rating":
        read = [number(a) for a in answers]
        value = np.array([np.nan if v is None else v for v in read], dtype=np.float64)
        near = np.maximum(0.0, 1.0 - np.abs(value[:, None] - value) / task.span)
        near[np.isnan(near)] = 0.0
        np.fill_diagonal(near, 1.0)
        return near.astype(np.float32)
    out = np.eye(n, dtype=np.float32)
    words = [tokens(a) for a in answers]
    for i in range(n):
        for j in range(i):
            if words[i] and words[j]:
                alike = token_agreement(words[i], words[j])
            else:
                alike = text_agreement(answers[i], answers[j])
            out[i, j] = out[j, i] = alike
    return out


def relative_gain(ours: float, theirs: float, task: TaskSpec) -> float:
    """Compare two mean utilities of one task across kinds.

    Accuracy ratio - 1 (label), 1 - MAE ratio (rating), utility ratio - 1 (text). A baseline
    of zero (or, for ratings, a perfect one) has no ratio: 0.0 if equal, else infinity.
    """
    if task.kind == "rating":
        ours, theirs = 1.0 - ours, 1.0 - theirs
        if theirs == 0.0:
            return 0.0 if ours == 0.0 else float("-inf")
        return 1.0 - ours / theirs
    if theirs == 0.0:
        return 0.0 if ours == 0.0 else float("inf")
    return ours / theirs - 1.0
