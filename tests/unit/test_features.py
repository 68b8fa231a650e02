"""Features: values worked out by hand, nothing from the future, no surprises at the edges."""

from __future__ import annotations

import numpy as np
import pytest

from hydra_edge.features import (
    ADAPTER_FEATURES,
    RERANKER_FEATURES,
    Pool,
    adapter,
    adapter_features,
    draw_in,
    reranker_features,
)
from hydra_edge.features.adapter import FLOOR
from hydra_edge.features.words import WORD_FEATURES, word_features
from hydra_edge.history import History
from hydra_edge.retrieval import Shortlist
from hydra_edge.tasks import BUILTIN, TaskSpec
from hydra_edge.types import Candidate, Float2d, Record

E = np.eye(4, dtype=np.float32)


def history_of(task: TaskSpec, rows: list[tuple[int, int, str]]) -> History:
    """Make records from (input axis, output axis, output text)."""
    records = [Record(f"in {a}", t, task.name, id=f"r{i}") for i, (a, _, t) in enumerate(rows)]
    inputs = E[[a for a, _, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    outputs = E[[b for _, b, _ in rows]] if rows else np.zeros((0, 4), dtype=np.float32)
    return History.build(task, records, inputs, outputs)


def everything(history: History, query: np.ndarray) -> Shortlist:
    n = len(history)
    zeros = np.zeros(n, dtype=np.float32)
    return Shortlist(np.arange(n), zeros, zeros, history.inputs @ query)


def column(features: Float2d, name: str, names: tuple[str, ...]) -> np.ndarray:
    return features[:, names.index(name)]


def pool_of(
    candidates: list[Candidate], axes: list[int], shown: int = 0, trust: tuple[float, ...] = ()
) -> Pool:
    return Pool(
        "alpha beta", E[0], tuple(candidates), E[axes],
        tuple(Record("x", "gamma", id=f"s{i}") for i in range(shown)),
        np.repeat(E[1:2], shown, axis=0), np.arange(len(trust)), np.array(trust, dtype=np.float32),
    )  # fmt: skip


def test_reranker_features_by_hand() -> None:
    task = BUILTIN["news_category"]
    history = history_of(task, [(0, 1, "TECH"), (0, 1, "TECH"), (1, 2, "SPORTS")])
    out = reranker_features(E[0], history, everything(history, E[0]), {"r2": (3, 2)})
    np.testing.assert_allclose(column(out, "cos_input", RERANKER_FEATURES), [1, 1, 0])
    np.testing.assert_allclose(column(out, "cos_output", RERANKER_FEATURES), [0, 0, 0])
    recency = column(out, "recency", RERANKER_FEATURES)
    assert recency[2] == 0.0
    assert recency[0] < recency[1] < 0.0
    consensus = column(out, "consensus", RERANKER_FEATURES)
    assert consensus[0] > 0.99  # its near neighbour says the same
    assert consensus[2] == 0.0  # all near records say another thing
    np.testing.assert_allclose(column(out, "duplicate", RERANKER_FEATURES), [0, 1, 0])
    helped = column(out, "helped", RERANKER_FEATURES)
    np.testing.assert_allclose(helped, [0, 0, np.log(3 / 2)], atol=1e-6)
    habit = column(out, "habit", RERANKER_FEATURES)
    assert habit[0] == habit[1] > habit[2] > 0


def test_reranker_features_of_texts_by_hand() -> None:
    texts = ["alpha beta", "gamma", "delta epsilon zeta"]
    records = [Record(f"in {i}", text, id=f"r{i}") for i, text in enumerate(texts)]
    outputs = np.stack([E[1], (E[1] + E[2]) / np.sqrt(2), E[0]]).astype(np.float32)
    history = History.build(BUILTIN["paper_title"], records, E[[0, 0, 1]], outputs)
    out = reranker_features(E[0], history, everything(history, E[0]))
    names, profile = RERANKER_FEATURES, history.profile
    np.testing.assert_allclose(column(out, "cos_output", names), [0, 0, 1], atol=1e-6)
    # The near two agree as their outputs' vectors do; the far one counts e^-10.
    agreed = np.array([1.0, 1.0, 0.0]) / np.sqrt(2) / (1.0 + np.exp(-10.0))
    np.testing.assert_allclose(column(out, "consensus", names), agreed, atol=1e-6)
    np.testing.assert_allclose(
        column(out, "log_consensus", names), np.log(agreed + 0.02), atol=1e-5
    )
    np.testing.assert_allclose(
        column(out, "recency", names), -np.log([3.0, 2.0, 1.0]) / np.log(4.0), atol=1e-6
    )
    np.testing.assert_allclose(column(out, "habit", names), outputs @ profile.centroid, atol=1e-6)
    far = np.abs(np.log([3.0, 2.0, 4.0]) - profile.log_length_mean) / profile.log_length_std
    np.testing.assert_allclose(column(out, "length_fit", names), -far, rtol=1e-5)


def test_reranker_consensus_of_labels_is_by_name_whatever_their_vectors() -> None:
    task = BUILTIN["news_category"]
    history = history_of(task, [(0, 1, "TECH"), (0, 2, "TECH"), (0, 2, "SPORTS")])
    out = reranker_features(E[0], history, everything(history, E[0]))
    np.testing.assert_allclose(
        column(out, "consensus", RERANKER_FEATURES), [0.5, 0.5, 0.0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("first", "second", "repeats"),
    [
        ("แมวนอนบนโซฟา", "ราคาหุ้นตกอย่างหนัก", 0),
        ("👍", "👎", 0),
        ("แมวนอน", " แมวนอน\n", 1),
        ("Fix the  café", "fix the cafe", 1),
        ("word " * 200 + "a", "word " * 200 + "b", 1),  # an encoder reads no more of them
    ],
)
def test_texts_the_encoder_does_not_tell_apart_repeat_only_what_is_written_the_same(
    first: str, second: str, repeats: int
) -> None:
    records = [Record(first, "a", id="r0"), Record(second, "b", id="r1")]
    history = History.build(BUILTIN["paper_title"], records, E[[0, 0]], E[[1, 2]])
    out = reranker_features(E[0], history, everything(history, E[0]))
    np.testing.assert_array_equal(column(out, "duplicate", RERANKER_FEATURES), [0, repeats])


def test_reranker_features_of_an_empty_shortlist() -> None:
    history = history_of(BUILTIN["paper_title"], [])
    assert reranker_features(E[0], history, everything(history, E[0])).shape == (
        0, len(RERANKER_FEATURES),
    )  # fmt: skip


def test_adapter_features_label_votes_and_support_by_hand() -> None:
    history = history_of(
        BUILTIN["movie_tag"], [(0, 1, "action"), (0, 1, "action"), (1, 2, "comedy")]
    )
    candidates = [
        Candidate("action", count=1), Candidate("comedy", count=3, greedy=True),
        Candidate("romance", count=0),
    ]  # fmt: skip
    out = adapter_features(pool_of(candidates, [1, 2, 3]), history)
    names = ADAPTER_FEATURES
    np.testing.assert_allclose(column(out, "votes", names), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(column(out, "consensus", names), [0.25, 0.75, 0.0])
    np.testing.assert_allclose(column(out, "greedy", names), [0, 1, 0])
    support = column(out, "support_near", names)
    assert support[0] > 0.999
    assert support[2] == 0.0
    wide = column(out, "support_wide", names)
    assert support[1] < wide[1] < wide[0], "a broad view lets the far record speak"
    habit = column(out, "habit", names)
    assert habit.sum() == pytest.approx(1.0)
    assert column(out, "log_habit", names)[2] == pytest.approx(np.log(0.02))
    assert not column(out, "length_fit", names).any(), "style says nothing of a closed set"


def test_adapter_features_rating_near_misses_count() -> None:
    history = history_of(BUILTIN["film_rating"], [(0, 1, "4"), (0, 1, "4")])
    candidates = [Candidate(str(i), count=int(i == 4)) for i in range(1, 6)]
    out = adapter_features(pool_of(candidates, [0, 1, 2, 3, 0]), history)
    np.testing.assert_allclose(
        column(out, "support_near", ADAPTER_FEATURES), [0.25, 0.5, 0.75, 1.0, 0.75], atol=1e-6
    )
    np.testing.assert_allclose(
        column(out, "consensus", ADAPTER_FEATURES), [0.25, 0.5, 0.75, 1.0, 0.75], atol=1e-6
    )


def test_adapter_features_text_by_hand() -> None:
    history = history_of(BUILTIN["paper_title"], [(0, 1, "Gamma Delta"), (1, 1, "Gamma Rays")])
    candidates = [
        Candidate("alpha gamma", count=2, greedy=True, logprob=-1.0),
        Candidate("Gamma Delta", count=1, logprob=-3.0),
    ]
    out = adapter_features(pool_of(candidates, [0, 1], shown=2), history)
    names = ADAPTER_FEATURES
    np.testing.assert_allclose(column(out, "logprob", names), [1.0, -1.0])
    np.testing.assert_allclose(column(out, "cos_query", names), [1, 0])
    np.testing.assert_allclose(column(out, "in_query", names), [0.5, 0.0])
    np.testing.assert_allclose(column(out, "copied", names), [0.5, 0.5])
    np.testing.assert_allclose(column(out, "cos_shown", names), [0, 1])
    # Of three samples: the first agrees with its echo (1) and half with the other.
    np.testing.assert_allclose(column(out, "consensus", names), [(1 + 0.5) / 2, 2 * 0.5 / 2])
    opening = column(out, "opening_fit", names)
    assert opening[1] > opening[0], "the user opens with Gamma"
    casing = column(out, "casing_fit", names)
    assert casing[1] == 0.0
    assert casing[0] < 0.0
    np.testing.assert_allclose(column(out, "length_fit", names), [0, 0], atol=1e-5)


def test_adapter_length_fit_counts_deviations_from_the_usual_length() -> None:
    history = history_of(BUILTIN["paper_title"], [(0, 1, "gamma delta"), (1, 1, "gamma rays")])
    texts = ["one", "one two", "one two three four five"]
    out = adapter_features(pool_of([Candidate(t) for t in texts], [0, 1, 2]), history)
    # No spread of one's own: two lengths that are alike, and three imagined ones .5 apart.
    deviation = np.sqrt(0.25 * 3 / 5)
    expected = -np.abs(np.log([2.0, 3.0, 6.0]) - np.log(3.0)) / deviation
    np.testing.assert_allclose(column(out, "length_fit", ADAPTER_FEATURES), expected, atol=1e-5)


def test_adapter_logprob_of_a_candidate_without_one_is_as_the_others_on_average() -> None:
    history = history_of(BUILTIN["paper_title"], [(0, 1, "gamma delta")])
    candidates = [Candidate("a", logprob=-1.0), Candidate("b", logprob=-3.0), Candidate("c")]
    out = adapter_features(pool_of(candidates, [0, 1, 2]), history)
    np.testing.assert_allclose(column(out, "logprob", ADAPTER_FEATURES), [1.0, -1.0, 0.0])


def test_adapter_support_of_texts_is_by_what_they_mean_and_not_by_name() -> None:
    history = history_of(BUILTIN["paper_title"], [(0, 1, "gamma delta"), (0, 1, "gamma rays")])
    candidates = [Candidate("nothing alike"), Candidate("gamma delta")]
    out = adapter_features(pool_of(candidates, [1, 0], trust=(0.5, 0.5)), history)
    for name in ("support_near", "support_wide", "support_ranked"):
        np.testing.assert_allclose(column(out, name, ADAPTER_FEATURES), [1.0, 0.0], atol=1e-6)


def test_adapter_support_is_of_the_nearest_records_alone() -> None:
    far = [(1, 2, "comedy")] * 10
    near = [(0, 1, "action")] * adapter.NEIGHBOURS
    candidates = [Candidate("action"), Candidate("comedy")]
    for rows, told in ((far + near, False), (far + near[1:], True)):
        out = adapter_features(pool_of(candidates, [1, 2]), history_of(BUILTIN["movie_tag"], rows))
        wide = column(out, "support_wide", ADAPTER_FEATURES)
        assert wide[0] > 0.9
        assert bool(wide[1]) is told


@pytest.mark.parametrize("name", ["paper_title", "movie_tag", "film_rating"])
def test_adapter_features_empty_history_is_finite(name: str) -> None:
    history = history_of(BUILTIN[name], [])
    out = adapter_features(pool_of([Candidate("1"), Candidate("👍")], [0, 1]), history)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", ["paper_title", "movie_tag"])
@pytest.mark.parametrize("rows", [[], [(0, 1, "action")]], ids=["empty", "one record"])
def test_adapter_features_of_no_candidates(name: str, rows: list[tuple[int, int, str]]) -> None:
    history = history_of(BUILTIN[name], rows)
    assert adapter_features(pool_of([], []), history).shape == (0, len(ADAPTER_FEATURES))


def leave_garbage_on_the_stack() -> None:
    """Make OpenBLAS copy signalling NaNs there: a strided vector is copied before it is used."""
    garbage = np.full(400, 0x7F800001, dtype=np.uint32).view(np.float32)
    with np.errstate(invalid="ignore"):
        np.ones((3, 200), dtype=np.float32) @ garbage[::2]


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_adapter_features_warn_of_nothing_that_lies_on_the_stack(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five of anything: AVX-512 kernels read a lane beyond it, and any warning fails a test."""

    def dirty(*args: object) -> Float2d:
        rows = compare(*args)
        leave_garbage_on_the_stack()
        return rows

    compare = adapter._similarity
    monkeypatch.setattr(adapter, "_similarity", dirty)
    task = BUILTIN[name]
    texts = ["1", "2", "3", "4", "5"] if task.kind == "rating" else ["a b", "c d", "e", "f", "g"]
    history = history_of(task, [(i % 4, i % 3, text) for i, text in enumerate(texts)])
    for m in range(2, 12):
        candidates = [Candidate(texts[i % 5], count=i % 3) for i in range(m)]
        pool = pool_of(candidates, [i % 4 for i in range(m)], 2, (0.1, 0.2, 0.3, 0.2, 0.2))
        assert np.isfinite(adapter_features(pool, history)).all()


def test_draw_in_halves_what_few_records_say_and_keeps_the_rest() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random((5, len(ADAPTER_FEATURES) + 2), dtype=np.float32)  # two learned ones
    told = {
        "support_near": "log_support_near", "support_wide": "log_support_wide",
        "habit": "log_habit", "support_ranked": "log_support_ranked", "length_fit": "",
        "opening_fit": "", "casing_fit": "", "punctuation_fit": "", "words_own": "",
        "words_near": "",
    }  # fmt: skip
    out = draw_in(raw, records=6, half_at=6.0)
    changed = set()
    for name, log in told.items():
        before, after = (column(of, name, ADAPTER_FEATURES) for of in (raw, out))
        np.testing.assert_allclose(after, (before + before.mean()) / 2, rtol=1e-5)
        changed.add(ADAPTER_FEATURES.index(name))
        if log:
            changed.add(ADAPTER_FEATURES.index(log))
            np.testing.assert_allclose(
                column(out, log, ADAPTER_FEATURES), np.log(after + FLOOR), rtol=1e-5
            )
    others = [i for i in range(raw.shape[1]) if i not in changed]
    np.testing.assert_array_equal(out[:, others], raw[:, others])


@pytest.mark.parametrize(("records", "spread"), [(0, 0.0), (1, 1 / 7), (10**6, 1.0)])
def test_draw_in_believes_more_the_more_records_there_are(records: int, spread: float) -> None:
    raw = np.random.default_rng(1).random((7, len(ADAPTER_FEATURES)), dtype=np.float32)
    near, drawn = (column(of, "support_near", ADAPTER_FEATURES)
                   for of in (raw, draw_in(raw, records, 6.0)))  # fmt: skip
    assert drawn.std() == pytest.approx(near.std() * spread, rel=1e-3, abs=1e-6)
    assert drawn.mean() == pytest.approx(near.mean(), rel=1e-4)


def test_draw_in_of_all_that_is_said_or_of_no_candidate_changes_nothing() -> None:
    raw = np.random.default_rng(2).random((3, len(ADAPTER_FEATURES)), dtype=np.float32)
    np.testing.assert_array_equal(draw_in(raw, 1, 0.0), raw)
    assert draw_in(raw, 1, 0.0) is not raw
    assert draw_in(raw[:0], 0, 6.0).shape == (0, len(ADAPTER_FEATURES))


def word_column(query: str, texts: list[str], history: History, name: str) -> np.ndarray:
    trust = np.full(len(history), 1.0 / max(len(history), 1), dtype=np.float32)
    candidates = [Candidate(t, count=1) for t in texts]
    out = word_features(query, candidates, history, np.arange(len(history)), trust)
    return out[:, WORD_FEATURES.index(name)]


def test_word_features_by_hand() -> None:
    """A usual length of three words: each word of a three-word candidate weighs 2 / 6."""
    task = BUILTIN["paper_title"]
    rows = [(0, 1, "parsing old texts"), (0, 1, "parsing new texts")]
    records = [
        Record(f"we study parsing and things {i}", text, task.name, id=f"r{i}")
        for i, (_, _, text) in enumerate(rows)
    ]
    history = History.build(task, records, E[[0, 0]], E[[1, 1]])
    query = "parsing is hard we show parsing"
    texts = ["parsing is fun", "cats eat texts", "fun fun fun"]

    def column_of(name: str) -> np.ndarray:
        return word_column(query, texts, history, name)

    third = 1.0 / 3.0
    np.testing.assert_allclose(column_of("words"), [1.0, 1.0, third], atol=1e-5)
    np.testing.assert_allclose(column_of("words_in_query"), [2 * third, 0.0, 0.0], atol=1e-5)
    early = (1.0 + 1.0 / (1.0 + 1.0 / 8.0)) * third
    np.testing.assert_allclose(column_of("words_early"), [early, 0.0, 0.0], atol=1e-5)
    often = (np.log1p(2) + np.log1p(1)) * third
    np.testing.assert_allclose(column_of("words_often"), [often, 0.0, 0.0], atol=1e-5)
    near = column_of("words_near")  # "parsing" and "texts" are in both outputs
    np.testing.assert_allclose(near, [third, third, 0.0], atol=1e-5)
    np.testing.assert_allclose(column_of("pairs_in_query"), [third, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(column_of("length_ratio"), [0.0, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(column_of("repeats"), [0.0, 0.0, 1.0])
    agreed = column_of("words_agreed")  # "fun" is in one of the two other samples
    np.testing.assert_allclose(agreed, [third / 2, 0.0, third / 2], atol=1e-5)
    # Of the twelve words of both inputs "parsing" alone is in its output, both times: that is the
    # rate behind a word never seen, such as "is", and three more observations of one that was.
    rate = (2 + 1) / (12 + 10)
    carried = ((2 + 3 * rate) / (2 + 3) + rate) * third
    np.testing.assert_allclose(column_of("words_carried"), [carried, 0.0, 0.0], atol=1e-5)
    rare = (np.log(3 / 2.5) + np.log(3 / 0.5)) * third
    np.testing.assert_allclose(column_of("words_rare"), [rare, 0.0, 0.0], atol=1e-5)
    never, always = 0.1 / 3, 2.1 / 3  # "texts" is in both outputs, "fun", "cats" and "eat" in none
    own = [never * third, (2 * never + always) * third, never * third]
    np.testing.assert_allclose(column_of("words_own"), own, atol=1e-5)


def test_word_features_of_an_empty_history_and_an_empty_candidate_are_finite() -> None:
    history = history_of(BUILTIN["paper_title"], [])
    trust = np.zeros(0, dtype=np.float32)
    out = word_features("a query", [Candidate("..."), Candidate("a")], history, np.arange(0), trust)
    assert np.isfinite(out).all()
    assert not out[0, : WORD_FEATURES.index("length_ratio")].any()


def test_adapter_support_follows_the_trusted_records() -> None:
    history = history_of(BUILTIN["movie_tag"], [(0, 1, "action"), (1, 2, "comedy")])
    candidates = [Candidate("action"), Candidate("comedy")]
    out = adapter_features(pool_of(candidates, [1, 2], trust=(0.2, 0.8)), history)
    support = column(out, "support_ranked", ADAPTER_FEATURES)
    np.testing.assert_allclose(support, [0.2, 0.8], atol=1e-6)
    log = column(out, "log_support_ranked", ADAPTER_FEATURES)
    np.testing.assert_allclose(log, np.log(np.array([0.2, 0.8]) + 0.02), atol=1e-6)
