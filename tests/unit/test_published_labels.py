"""HYDRA as published without torch: what it may see, its labels, and its head in numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bench_users
import numpy as np
import pytest
from bench_users import answer, label_rows, of_rows, text_rows
from hypothesis import given
from hypothesis import strategies as st
from published_items import DIM, mean_head

from bench.case import SAMPLING
from export.cache import CachedLLM
from export.data import UserHistory
from export.published.head import best_first
from export.published.labels import (
    LISTED,
    Allowance,
    LeakError,
    PseudoQuery,
    affordable,
    draw,
    label_pools,
    label_records,
    record_text,
    shortlist,
    task_before,
)
from hydra_edge.errors import BackendError, ContextLengthError, ShapeError
from hydra_edge.retrieval import OkapiIndex
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record

llm = bench_users.llm


# What a pseudo-query may see -----------------------------------------------------------------


@given(n=st.integers(0, 30), edge=st.integers(0, 30), most=st.integers(0, 12))
def test_drawn_pseudo_queries_are_of_the_past_and_see_only_earlier_records(
    n: int, edge: int, most: int
) -> None:
    edge = min(edge, n)
    user = of_rows(text_rows(1, max(n, 1)))
    drawn = draw(user, edge, most, seed=0)
    assert len(drawn) == min(most, max(0, edge - 2))
    assert len({q.position for q in drawn}) == len(drawn)
    for query in drawn:
        assert query.position < edge
        assert len(query.listed) == len(set(query.listed)) == min(LISTED, query.position)
        assert max(query.listed) < query.position


def test_drawn_pseudo_queries_do_not_depend_on_how_many_or_on_what_comes_later() -> None:
    user = of_rows(text_rows(1, 30))
    cut = replace(user, records=user.records[:20])
    assert draw(user, 20, 9, seed=0)[:4] == draw(cut, 20, 4, seed=0)
    assert draw(user, 20, 9, seed=0) != draw(user, 20, 9, seed=1)


def test_shortlist_is_bm25s_best_then_the_latest_without_a_common_word() -> None:
    lexical = OkapiIndex(["red fox", "blue sea", "red sea", "green hill", "red hen"])
    assert shortlist(lexical, "a red sea", 4, 10) == (2, 1, 0, 3)
    assert shortlist(lexical, "a red sea", 4, 2) == (2, 1)
    assert shortlist(lexical, "nothing", 3, 2) == (2, 1)
    assert shortlist(lexical, "nothing", 0, 2) == ()


@pytest.mark.parametrize("label", [label_records, label_pools])
@pytest.mark.parametrize(
    ("planted", "match"),
    [
        (PseudoQuery(20, (1, 2)), "at 20 as a pseudo-query; expected one before 20"),
        (PseudoQuery(25, (1, 2)), "at 25 as a pseudo-query; expected one before 20"),
        (PseudoQuery(-1, (0,)), "at -1 as a pseudo-query"),
        (PseudoQuery(9, (3, 9)), "pseudo-query at 9 would see itself"),
        (PseudoQuery(9, (3, 10)), "pseudo-query at 9 would see the later record at 10"),
        (PseudoQuery(9, (3, 22)), "would see the later record at 22"),
    ],
)
def test_planted_leak_is_refused_before_the_llm_is_asked(llm, label, planted, match) -> None:
    user = of_rows(text_rows(1, 26))
    good = draw(user, 20, 2, seed=0)
    with pytest.raises(LeakError, match=match):
        label(llm, BUILTIN["paper_title"], user, 20, [*good, planted])
    assert llm.prompts == []


def test_closed_set_holds_no_answer_given_after_the_edge() -> None:
    rows = label_rows(0, 12, "movie_tag")
    user = of_rows([*rows[:-1], rows[-1] | {"output": "zinc"}])
    assert "zinc" not in task_before(user, 11, {}).labels
    assert "zinc" in task_before(user, 12, {}).labels


# Labels ----------------------------------------------------------------------------------------


def test_reranker_label_needs_the_exact_answer(scripted) -> None:
    # "comedy" for "dark comedy", and an empty answer, counted as right in the authors' code.
    replies = {"a": "dark comedy", "b": "comedy", "c": "", "d": " Dark Comedy ", "e": "action"}
    records = [Record(f"film {x}", "romance", "movie_tag", x) for x in replies]
    user = UserHistory("u", "movie_tag", (*records, Record("film f", "dark comedy", id="q")))
    llm = scripted(lambda p, _n: [replies[p.record_ids[0]]])
    found = label_records(llm, BUILTIN["movie_tag"], user, 6, [PseudoQuery(5, (0, 1, 2, 3, 4))])
    assert [pair.label for pair in found.pairs] == [1, 0, 0, 1, 0]
    assert found.calls == 5
    assert all(len(prompt.shots) == 1 for prompt in llm.prompts)
    assert {pair.first for pair in found.pairs} == {"film f"}
    assert found.pairs[0].second == "romance\nfilm a" == record_text(records[0])


def test_rating_label_is_equality_and_not_nearness(scripted) -> None:
    records = [Record(f"film {x}", "3", "film_rating", x) for x in "45"]
    user = UserHistory("u", "film_rating", (*records, Record("a film", "5", id="q")))
    llm = scripted(lambda p, _n: [p.record_ids[0]])
    found = label_records(llm, BUILTIN["film_rating"], user, 3, [PseudoQuery(2, (0, 1))])
    assert [pair.label for pair in found.pairs] == [0, 1]


def test_text_label_is_above_the_mean_of_its_own_query(scripted) -> None:
    # An easy query and a hard one: a common threshold would make the easy one all positive.
    replies = {"e0": "red fox runs home", "e1": "red fox runs", "h0": "red", "h1": "none"}
    records = [Record(x, "t", "paper_title", x) for x in replies]
    easy, hard = Record("easy", "red fox runs home", id="qe"), Record("hard", "red sun", id="qh")
    user = UserHistory("u", "paper_title", (*records, easy, hard))
    queries = [PseudoQuery(4, (0, 1)), PseudoQuery(5, (2, 3))]
    llm = scripted(lambda p, _n: [replies[p.record_ids[0]]])
    found = label_records(llm, BUILTIN["paper_title"], user, 6, queries)
    assert [(p.query_id, p.label) for p in found.pairs] == [
        ("qe", 1), ("qe", 0), ("qh", 1), ("qh", 0),
    ]  # fmt: skip


def test_text_candidates_all_alike_are_all_negative(scripted) -> None:
    user = of_rows(text_rows(1, 14))
    llm = scripted(lambda _p, _n: ["on the meadow by chance"])
    found = label_records(llm, BUILTIN["paper_title"], user, 14, draw(user, 14, 3, seed=0))
    assert {pair.label for pair in found.pairs} == {0}


def test_record_that_did_not_fit_the_context_makes_no_pair(scripted) -> None:
    def reply(prompt, _n):
        if prompt.record_ids == ("u0-1",):
            raise ContextLengthError("no room")
        return ["amber"]

    user = of_rows(label_rows(0, 6, "movie_tag"))
    found = label_records(
        scripted(reply), BUILTIN["movie_tag"], user, 6, [PseudoQuery(5, (0, 1, 2))]
    )
    assert len(found.pairs) == 2
    assert found.calls == 3


def test_text_pool_has_the_truth_as_its_positive_and_samples_as_negatives(scripted) -> None:
    user = of_rows(text_rows(1, 14))
    llm = scripted(lambda _p, n: ["the meadow", "the meadow", " ", *["the furnace"] * (n - 3)])
    queries = draw(user, 14, 2, seed=0)
    found = label_pools(llm, BUILTIN["paper_title"], user, 14, queries)
    assert found.calls == 16
    for query in queries:
        record = user.records[query.position]
        pairs = [p for p in found.pairs if p.query_id == record.id]
        assert [p.label for p in pairs] == [0] * 7 + [1]
        assert pairs[-1].second == record.output
    shown = [user.records[i].id for i in queries[0].listed[: SAMPLING.shown]]
    assert list(reversed(llm.prompts[0].record_ids)) == shown, "BM25's best, the best one last"


def test_label_pool_has_a_row_for_each_sample_right_where_exact(scripted) -> None:
    user = of_rows(label_rows(0, 9, "movie_tag"))
    truth = user.records[8].output
    votes = [truth.upper(), "comedy", "comedy", truth, "action", "", "x" + truth, "comedy"]
    llm = scripted(lambda _p, _n: votes)
    task = task_before(user, 9, {})
    found = label_pools(llm, task, user, 9, [PseudoQuery(8, (1, 2, 3, 4, 5))])
    assert [p.label for p in found.pairs] == [1, 0, 0, 1, 0, 0, 0]
    assert len(llm.prompts[0].shots) == 4


def test_allowance_is_never_overspent_and_spent_as_far_as_whole_queries_go(llm) -> None:
    user = of_rows(text_rows(1, 26))
    for calls in (0, 1, 9, 10, 25, 40):
        drawn = draw(user, 26, Allowance(calls, 0).queries, seed=0)
        taken = affordable(drawn, calls)
        found = label_records(llm, BUILTIN["paper_title"], user, 26, taken)
        assert found.calls == sum(len(q.listed) for q in taken) <= calls
    assert len(taken) >= 4


def test_labelling_asks_at_temperature_zero_once_and_replays_or_fails(
    tmp_path: Path, scripted
) -> None:
    asked: list[tuple[int, float]] = []

    class Watching(type(scripted(answer))):
        def complete(self, prompt, *, n=1, temperature=0.8, **options):
            asked.append((n, temperature))
            return super().complete(prompt, n=n, temperature=temperature, **options)

    user, task = of_rows(text_rows(1, 20)), BUILTIN["paper_title"]
    queries = draw(user, 20, 3, seed=0)
    llm = CachedLLM(Watching(answer), tmp_path / "cache.jsonl")
    first = label_records(llm, task, user, 20, queries[:2])
    assert set(asked) == {(1, 0.0)}
    replay = CachedLLM(None, tmp_path / "cache.jsonl", name="scripted")
    assert label_records(replay, task, user, 20, queries[:2]) == first
    with pytest.raises(BackendError, match="run once with the model itself"):
        label_records(replay, task, user, 20, queries)


# The head in numpy ---------------------------------------------------------------------------


def test_head_refuses_vectors_of_another_width_and_orders_ties_as_given() -> None:
    head = mean_head(np.zeros((2, DIM), np.float32), np.array([0, 0]), seed=0)
    with pytest.raises(ShapeError, match=r"got vectors of shape \(3, 5\); expected \(n, 64\)"):
        head.probability(np.zeros((3, 5), np.float32))
    flat = head.probability(np.ones((4, DIM), np.float32))
    np.testing.assert_array_equal(flat, 0.5)
    assert best_first(np.array([0.1, 0.9, 0.1, 0.9], np.float32)).tolist() == [1, 3, 0, 2]
    huge = replace(head, outer=np.full((2, DIM), 1e6, np.float32) * [[0], [1]])
    assert huge.probability(np.ones((1, DIM), np.float32)).tolist() == [1.0]
    assert head.size_bytes == 4 * head.parameters == 4 * (DIM * DIM + DIM + 2 * DIM + 2)
