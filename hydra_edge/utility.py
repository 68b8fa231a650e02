"""Utility: agreement of an answer with what the user really wrote, in [0, 1].

Also the word-level comparisons that features share with it. ROUGE here follows Lin (2004)
without stemming; on ASCII text it equals the ``rouge-score`` package (tested).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hydra_edge.spelling import fold_label, rating_value
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Float2d

# Scripts without spaces between words: CJK and kana; Thai, Lao, Burmese, Khmer.
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_SOUTH_EAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
# One token: a letter of such a script by itself, else a run of letters and digits. It is compiled
# (for 4 ms) by the first text that needs it.
_WORD = rf"[{_CJK}]|(?=\w)[{_SOUTH_EAST}]|[^\W_{_CJK}{_SOUTH_EAST}]+"
# A text has the same words on every Python: those of this Unicode, the oldest supported one's.
UNICODE = "14.0.0"
# Where that has nothing and a later one, up to 17, has something: each such gap, whole.
_YOUNGER = (
    "["
    r"\u088f\u0892-\u0897\u0c5b-\u0c5c\u0cd7-\u0cdc\u0cf3-\u0cff\u0ece-\u0ecf\u1acf-\u1aff"
    r"\u1b4d-\u1b4f\u1b7f\u1c89-\u1c8f\u20c1-\u20cf\u2427-\u243f\u2b96\u2ffc-\u2fff\u31e4-\u31ef"
    r"\ua7cb-\ua7cf\ua7d2\ua7d4\ua7da-\ua7f1\ufbc3-\ufbd2\ufd90-\ufd91\ufdc8-\ufdce"
    r"\U000105bd-\U000105ff\U00010940-\U0001097f\U00010d3a-\U00010e5f\U00010eb2-\U00010eff"
    r"\U0001123f-\U0001127f\U00011375-\U000113ff\U000116ca-\U000116ff\U00011af9-\U00011bff"
    r"\U00011daa-\U00011edf\U00011ef9-\U00011faf\U0001342f\U00013439-\U000143ff"
    r"\U00014647-\U000167ff\U00016b90-\U00016e3f\U00016e9b-\U00016eff\U00016ff2-\U00016fff"
    r"\U000187f8-\U000187ff\U00018cd6-\U00018cff\U00018d09-\U0001afef\U0001b123-\U0001b14f"
    r"\U0001b153-\U0001b163\U0001bca4-\U0001ceff\U0001d246-\U0001d2df\U0001df1f-\U0001dfff"
    r"\U0001e02b-\U0001e0ff\U0001e300-\U0001e7df\U0001f6d8-\U0001f6dc\U0001f774-\U0001f77f"
    r"\U0001f7d9-\U0001f7df\U0001f8b2-\U0001f8ff\U0001fa54-\U0001fa5f\U0001fa75-\U0001fa77"
    r"\U0001fa87-\U0001fa8f\U0001faad-\U0001faaf\U0001fabb-\U0001fabf\U0001fac6-\U0001facf"
    r"\U0001fada-\U0001fadf\U0001fae8-\U0001faef\U0001faf7-\U0001faff\U0001fbcb-\U0001fbef"
    r"\U0001fbfa-\U0001ffff\U0002b739-\U0002b73f\U0002cea2-\U0002ceaf\U0002ebe1-\U0002f7ff"
    r"\U0003134b-\U000e0000"
    "]"
)
# ASCII is split several times faster by blanking out what is no letter or digit.
_BLANKED = "".join(chr(i) if chr(i).isalnum() else " " for i in range(128))
_Ratings: TypeAlias = float | npt.NDArray[np.floating[Any]]
# Longer texts are compared by their opening: ROUGE-L is quadratic in the worst case.
MAX_TOKENS = 2000


def is_mark(letter: str) -> bool:
    """Tell whether a character is part of the letter before it: an accent, a vowel sign.

    Those that make an emoji of a character, or put a frame around it, are not.
    """
    if unicodedata.category(letter) not in {"Mn", "Mc"}:
        return False
    return "VARIATION SELECTOR" not in unicodedata.name(letter, "")


# Asked of every kind of letter in a text, so of few in many texts.
@lru_cache(maxsize=4096)
def _is_younger(letter: str) -> bool:
    return re.match(_YOUNGER, letter) is not None


@lru_cache(maxsize=4096)
def _leaves_mark(letter: str) -> bool:
    return any(map(is_mark, unicodedata.normalize("NFC", letter.lower())))


def _words(text: str) -> list[str]:
    """Split a text beyond ASCII; the marks of letters stay with them."""
    kinds = set(text)
    if younger := [ord(letter) for letter in filter(_is_younger, kinds)]:
        text = text.translate(dict.fromkeys(younger, " "))
    given, text = text, unicodedata.normalize("NFC", text.lower())
    if not any(map(_leaves_mark, kinds)):
        return re.findall(_WORD, text)
    marks = set(filter(is_mark, kinds if text == given else set(text)))
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
    return _words(head)[:limit]


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


def near(a: _Ratings, b: _Ratings, span: float) -> npt.NDArray[np.floating[Any]]:
    """1 - abs(a - b) / span of ratings, at least 0.0; 0.0 where either is nan."""
    return np.asarray(np.fmax(0.0, 1.0 - np.abs(a - b) / span))


def rating_agreement(a: str, b: str, span: float) -> float:
    """1 - abs(error) / range; 0.0 where either is not a number."""
    return float(near(rating_value(a), rating_value(b), span))


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
        value = np.array([rating_value(a) for a in answers], dtype=np.float64)
        matrix = near(value[:, None], value, task.span)
        np.fill_diagonal(matrix, 1.0)
        return matrix.astype(np.float32)
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
