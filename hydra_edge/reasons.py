"""Why a record or an answer was chosen, in words a person can check against the texts.

And by which head. All doors say it in these words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hydra_edge.types import HeadInfo, Switch

RERANKER_WORDS = {
    "cos_input": "its input means the same as the query",
    "cos_output": "its output fits the query",
    "bm25": "shares rare words with the query",
    "bm25_rank": "among the first by shared words",
    "recency": "recent",
    "consensus": "other near records have such an output",
    "log_consensus": "some near record has such an output",
    "habit": "a usual output of yours",
    "length_fit": "of your usual length",
    "duplicate": "repeats a better record",
    "helped": "answers shown with it were taken before",
}
ADAPTER_WORDS = {
    "greedy": "the LLM's first choice",
    "consensus": "agrees with the other samples",
    "votes": "drawn by many samples",
    "log_votes": "drawn by some sample",
    "logprob": "the LLM was sure of it",
    "cos_query": "means what the query means",
    "in_query": "uses the query's words",
    "copied": "uses words of the shown records only",
    "cos_shown": "like the outputs shown",
    "support_near": "like your outputs to the nearest records",
    "support_wide": "like your outputs to related records",
    "log_support_near": "some output to a near record is like it",
    "log_support_wide": "some output to a related record is like it",
    "habit": "a usual answer of yours",
    "log_habit": "an answer you have given before",
    "length_fit": "of your usual length",
    "opening_fit": "opens as you do",
    "casing_fit": "capitals as you use them",
    "punctuation_fit": "punctuation as you use it",
    "support_ranked": "like the outputs of the records ranked first",
    "log_support_ranked": "some record ranked high has such an output",
    "cos_consensus": "means what the other samples mean",
    "zero_shot": "drawn without your records",
    "words": "its length, for words to be shared",
    "words_in_query": "made of the query's words",
    "words_early": "made of the query's first words",
    "words_often": "made of words the query repeats",
    "words_carried": "made of words you tend to carry over",
    "words_rare": "made of the query's rare words",
    "words_own": "made of words you write often",
    "words_near": "made of words from near outputs",
    "words_agreed": "made of words other samples use",
    "pairs_in_query": "in the query's own phrases",
    "length_ratio": "longer than your usual",
    "repeats": "says a word twice",
    "known_fit": "near what people answer to such a text",
    "log_known_fit": "an answer people give to such a text",
    "own_fit": "near what your answers make likely",
    "log_own_fit": "an answer that yours make likely",
}

SWITCHES = {
    "baseline": "no head (plain order, first answer)",
    "shared": "the shared head",
    "personal": "{whose} own head",
}

# Of rows of a fit's table that are not of the queries its head is judged on.
EARLIER = "on earlier records; the head is judged on your latest choices"
LEFT_OUT = "on earlier records, which your later choices contradict"
BEFORE_CHOICES = (EARLIER, LEFT_OUT)


def in_words(feature: str, role: str) -> str:
    """Say what a feature means; one learned by the base says so."""
    known = RERANKER_WORDS if role == "reranker" else ADAPTER_WORDS
    if feature in known:
        return known[feature]
    if feature.startswith("map_"):
        return f"learned likeness {feature.removeprefix('map_').replace('_', ' ')}"
    return feature.replace("_", " ")


def largest(values: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    """Return the entries of largest size, largest first; those that round to nothing are left."""
    entries = sorted(values.items(), key=lambda item: -abs(item[1]))
    return [(name, value) for name, value in entries[:count] if abs(value) >= 0.005]


def reasons(contributions: Mapping[str, float], role: str, count: int = 3) -> str:
    """Put the largest contributions to a score on one line, each with its exact share."""
    parts = [
        f"{value:+.2f} {in_words(name, role)}" for name, value in largest(contributions, count)
    ]
    return "; ".join(parts) or "nothing speaks for or against it"


def serving(switch: Switch, whose: str) -> str:
    """Say what serves; ``whose`` is ``your`` to the user, ``the user's`` to anybody else."""
    return SWITCHES[switch].format(whose=whose)


def too_close(head: HeadInfo) -> str:
    """Say whose answer was kept where a personal head was not sure of a better one."""
    kept = "the shared head's" if head.otherwise == "shared" else "the LLM's own"
    return f"Too close to call: {kept} choice was kept."


def head_line(head: HeadInfo, whose: str) -> str:
    """Say which weights made a choice, and why those; ``whose`` as for ``serving``."""
    line = serving(head.switch, whose)
    if head.version is not None:
        own = f"v{head.version}"
        if head.n_queries:
            queries = "query" if head.n_queries == 1 else "queries"
            own += f", learned from {head.n_queries:,} {queries}"
        line += f" {own}" if head.switch == "personal" else f" ({whose} own {own}, is not used)"
    return f"{line}: {head.reason}" if head.reason else line
