"""Word by word: which words of a candidate the user's own text is likely to hold.

ROUGE counts shared words, so the utility to expect of a candidate is twice the expected number
of shared words over the sum of both lengths. Each feature here is that sum for one cue of a
word being shared (it stands in the query, early, often; the user tends to carry it over ...),
and a linear head over these features is a linear model of the cues. Free text only.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from hydra_edge.history import History
from hydra_edge.types import Candidate, Float1d, Float2d, Int1d
from hydra_edge.utility import tokens

WORD_FEATURES = (
    "words",  # its words at all: the longer, the more can be shared
    "words_in_query",  # those the query holds
    "words_early",  # the same, those that come early in it counting more
    "words_often",  # the same, by how often the query says them
    "words_carried",  # the same, by how often the user carries the word over
    "words_rare",  # the same, by how rare the word is in the user's inputs
    "words_own",  # those not in the query, by how often the user writes them
    "words_near",  # by how many outputs of near records hold them
    "words_agreed",  # by how many other samples hold them
    "pairs_in_query",  # pairs of words that follow each other in the query too
    "length_ratio",  # log of its length over the user's usual length
    "repeats",  # 1 if it says a word twice
)
RECENT = 200  # records whose words tell the user's habits
EARLY = 8.0  # words into the query after which a word counts half
_DOUBT = 3.0  # pseudo-observations behind the rate at which a word is carried over


@lru_cache(maxsize=8192)
def word_set(text: str) -> frozenset[str]:
    """Return the distinct words of a text."""
    return frozenset(tokens(text))


class _Habits:
    """How the user's recent records use words: counts over at most ``RECENT`` of them."""

    def __init__(self, history: History, words: set[str]) -> None:
        recent = history.records[-RECENT:]
        self.n = len(recent)
        self.given = dict.fromkeys(words, 0)
        self.written = dict.fromkeys(words, 0)
        self.both = dict.fromkeys(words, 0)
        carried = given = 0
        for record in recent:
            into, out = word_set(record.input), word_set(record.output)
            given += len(into)
            carried += len(into & out)
            for word in words & into:
                self.given[word] += 1
                self.both[word] += word in out
            for word in words & out:
                self.written[word] += 1
        self._rate = (carried + 1.0) / (given + 10.0)

    def carried(self, word: str) -> float:
        """Estimate how often a word of an input is in its output too."""
        return (self.both[word] + _DOUBT * self._rate) / (self.given[word] + _DOUBT)

    def rarity(self, word: str) -> float:
        """Log of the share of inputs without the word, as in BM25."""
        return float(np.log((self.n + 1.0) / (self.given[word] + 0.5)))

    def own(self, word: str) -> float:
        """Share of outputs that hold the word."""
        return (self.written[word] + 0.1) / (self.n + 1.0)


def _near(history: History, index: Int1d, weight: Float1d, words: set[str]) -> dict[str, float]:
    """Weigh each word by the near records whose outputs hold it."""
    out = dict.fromkeys(words, 0.0)
    for i, w in zip(index.tolist(), weight.tolist(), strict=True):
        for word in words & word_set(history.records[i].output):
            out[word] += w
    return out


def _agreed(
    candidates: Sequence[Candidate], words: Sequence[set[str]], row: int
) -> dict[str, float]:
    """Share of the other samples that hold each word of one candidate."""
    counts = [c.count for c in candidates]
    others = max(sum(counts) - 1, 1)
    held = dict.fromkeys(words[row], max(counts[row] - 1, 0))
    for j, theirs in enumerate(words):
        if j != row:
            for word in words[row] & theirs:
                held[word] += counts[j]
    return {word: count / others for word, count in held.items()}


def _cues(
    query: Sequence[str], habits: _Habits, near: Mapping[str, float]
) -> dict[str, list[float]]:
    """Describe each word that some candidate holds, in the order of the first eight features."""
    first: dict[str, int] = {}
    often: dict[str, int] = {}
    for place, word in enumerate(query):
        first.setdefault(word, place)
        often[word] = often.get(word, 0) + 1
    out = {}
    for word, nearness in near.items():
        if word in first:
            early = 1.0 / (1.0 + first[word] / EARLY)
            told = [1.0, early, float(np.log1p(often[word])), habits.carried(word)]
            out[word] = [1.0, *told, habits.rarity(word), 0.0, nearness]
        else:
            out[word] = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, habits.own(word), nearness]
    return out


def word_features(
    query: str,
    candidates: Sequence[Candidate],
    history: History,
    index: Int1d,
    weight: Float1d,
) -> Float2d:
    """Compute the word features of free-text candidates.

    Parameters
    ----------
    query
        The query's text.
    candidates
        ``m`` answers.
    history
        As it was at the time of the query; its latest ``RECENT`` records are counted.
    index, weight
        The near records and their weights (adding up to 1), both ``(k,)``.

    Returns
    -------
    Float2d
        Shape ``(m, len(WORD_FEATURES))``, float32, unscaled.
    """
    asked = tokens(query)
    pairs = set(itertools.pairwise(asked))
    said = [tokens(c.text) for c in candidates]
    words = [set(s) for s in said]
    every = set().union(*words)
    cues = _cues(asked, _Habits(history, every), _near(history, index, weight, every))
    usual = float(np.expm1(history.profile.log_length_mean))
    out = np.zeros((len(candidates), len(WORD_FEATURES)), dtype=np.float32)
    for row, spoken in enumerate(said):
        agreed = _agreed(candidates, words, row)
        scale = 2.0 / (len(spoken) + usual + 1e-6)
        if spoken:  # in the order they are said: sums must not depend on a set's order
            distinct = list(dict.fromkeys(spoken))
            out[row, :8] = scale * np.sum([cues[word] for word in distinct], axis=0)
            out[row, 8] = scale * sum(agreed[word] for word in distinct)
        out[row, 9] = scale * sum(p in pairs for p in itertools.pairwise(spoken))
        out[row, 10] = np.log1p(len(spoken)) - np.log1p(usual)
        out[row, 11] = len(spoken) != len(words[row])
    return out
