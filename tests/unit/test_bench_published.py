"""HYDRA as published without torch: what it may see, its labels, its row, its card."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import bench_users
import numpy as np
import pytest
from bench_users import (
    QUERIES,
    answer,
    data_of,
    label_rows,
    quiet,
    stores_closed,
    text_rows,
    write,
)
from hypothesis import given
from hypothesis import strategies as st

import bench.published
from bench.case import POOLS, SAMPLING, Case
from bench.guard import BenchError
from bench.published import Published, check_not_trained_on
from bench.rows import ROWS
from bench.run import Bench, fit_user, run_task
from bench.summary import summarise
from export.cache import CachedLLM
from export.data import UserHistory
from export.published.card import CARD_FILE, FILES, Card, read_card, read_cards, verify
from export.published.head import Head, best_first
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
from hydra_edge.errors import (
    BackendError,
    BundleError,
    BundleHashError,
    BundleVersionError,
    ContextLengthError,
    ShapeError,
)
from hydra_edge.retrieval import OkapiIndex
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Record
from hydra_edge.utility import tokens

DIM = 64
TRAINED = {"users": 30, "roles": {"adapter": {"steps": 140}}, "files": {}}
llm, labels = bench_users.llm, bench_users.labels


def of_rows(rows: list[dict[str, object]]) -> UserHistory:
    records = tuple(
        Record(str(r["input"]), str(r["output"]), str(r["task"]), str(r["id"]), float(i))
        for i, r in enumerate(rows)
    )
    return UserHistory(str(rows[0]["user"]), str(rows[0]["task"]), records)


class WordPairs:
    """Encodes a pair as its words, each text's in a half of its own."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def encode(self, pairs: Sequence[tuple[str, str]], *, progress: object = None) -> np.ndarray:
        self.seen += pairs
        out = np.zeros((len(pairs), DIM), dtype=np.float32)
        for row, pair in enumerate(pairs):
            for side, text in enumerate(pair):
                for word in tokens(text):
                    place = hashlib.sha256(word.encode()).digest()[0] % (DIM // 2)
                    out[row, side * DIM // 2 + place] += 1.0
        return out


def mean_head(vectors: np.ndarray, labels: np.ndarray, *, seed: int) -> Head:
    """Fit what separates positives from negatives in the mean: no torch, no randomness."""
    inner = np.eye(DIM, dtype=np.float32) * 0.1
    outer = np.zeros((2, DIM), dtype=np.float32)
    if 0 < labels.sum() < len(labels):
        outer[1] = vectors[labels == 1].mean(axis=0) - vectors[labels == 0].mean(axis=0)
    return Head(inner, np.zeros(DIM, np.float32), outer, np.zeros(2, np.float32))


@pytest.fixture
def encoders() -> dict:
    return {"reranker": WordPairs(), "adapter": WordPairs()}


@pytest.fixture
def method(encoders) -> Published:
    return Published(
        lambda _task: encoders, mean_head, Allowance(40, 5), 0, {"colour_of_day": TRAINED}
    )


@pytest.fixture
def bench_of(bundle, hash_encoder, llm) -> Iterator[Bench]:
    with stores_closed():
        yield Bench(bundle, hash_encoder, llm, QUERIES, 2, 0)


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


# The row ---------------------------------------------------------------------------------------


def test_row_is_measured_beside_ours_on_the_same_queries(bench_of, labels, method) -> None:
    rows = (*ROWS, *method.rows)
    task = summarise(run_task(bench_of, labels, quiet, rows), 0, rows)
    found = task["rows"]
    assert {"hydra_published", "published_reranker", "published_adapter"} <= set(found)
    n = task["queries"]
    assert found["hydra_published"]["llm_calls"] == 8 * n
    assert found["published_reranker"]["llm_calls"] == n
    assert found["published_adapter"]["llm_calls"] == 8 * n
    assert 0.0 <= found["hydra_published"]["utility"] <= 1.0
    costs = method.costs(labels.name)
    assert (costs["users"], costs["pool_calls"]) == (3, 120)
    assert 90 < costs["record_calls"] <= 120
    assert costs["bytes_per_user"] == 2 * 4 * (DIM * DIM + DIM + 2 * DIM + 2)
    assert json.dumps(costs)
    assert method.costs("another") == {"users": 0}
    assert costs["trained"] == TRAINED


def test_fitting_sees_the_records_before_the_first_query_only(
    bench_of, labels, method, encoders, llm
) -> None:
    subject = fit_user(bench_of, labels, labels.users[0])
    # Even if the store has grown by then: an answered query is no pseudo-query.
    subject.engine.store.add(labels.users[0].records[subject.edge : -1])
    llm.prompts.clear()
    method.fitted(subject)
    asked = {prompt.query for prompt in llm.prompts}
    late = {record.input for record in labels.users[0].records[subject.edge :]}
    assert asked
    assert not asked & late
    assert not late & {first for e in encoders.values() for first, _ in e.seen}
    order = {record.id: i for i, record in enumerate(labels.users[0].records)}
    inputs = {record.input: i for i, record in enumerate(labels.users[0].records)}
    for prompt in llm.prompts:
        assert all(order[shown] < inputs[prompt.query] for shown in prompt.record_ids)


def test_run_whose_pseudo_queries_leak_stops(
    bench_of, labels, method, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        bench.published, "draw", lambda _user, edge, _n, seed: [PseudoQuery(edge, (0, 1))]
    )
    with pytest.raises(LeakError, match="the first query to be answered"):
        run_task(bench_of, labels, quiet, (*ROWS, *method.rows))


def test_user_is_fitted_once_and_without_a_budget_still_answers(
    bench_of, labels, encoders, llm
) -> None:
    method = Published(lambda _task: encoders, mean_head, Allowance(0, 0), 0)
    subject = fit_user(bench_of, labels, labels.users[0])
    llm.prompts.clear()
    assert method.fitted(subject) is method.fitted(subject)
    assert llm.prompts == []
    assert method.costs(labels.name)["pairs_per_user"] == 0
    case = Case(subject, subject.edge)
    best = shortlist(subject.engine.lexical(case.history), case.query, len(case.history), LISTED)
    assert [r.id for r in method.shown(case)] == [case.history.records[i].id for i in best[:4]], (
        "a head that says nothing leaves BM25's order"
    )


def test_shown_are_the_four_of_bm25s_ten_that_the_head_prefers(bench_of, labels, method) -> None:
    subject = fit_user(bench_of, labels, labels.users[0])
    case = Case(subject, subject.edge)
    lexical = subject.engine.lexical(case.history)
    ten = [case.history.records[i] for i in shortlist(lexical, case.query, subject.edge, LISTED)]
    head = method.fitted(subject).heads["reranker"]
    pairs = [(case.query, record_text(record)) for record in ten]
    p = head.probability(WordPairs().encode(pairs))
    expected = [ten[i].id for i in np.argsort(-p, kind="stable")[:4]]
    assert [record.id for record in method.shown(case)] == expected
    assert len(np.unique(p)) > 1


def test_chosen_is_the_sample_the_adapters_head_prefers_and_no_member_nobody_sampled(
    bench_of, labels, encoders, scripted
) -> None:
    def prefers(*words: str) -> Head:
        wanted = WordPairs().encode([("", word) for word in words])
        weights = wanted.T @ np.linspace(1.0, 0.5, len(words), dtype=np.float32)
        head = mean_head(np.zeros((2, DIM), np.float32), np.array([0, 0]), seed=0)
        return replace(head, outer=np.stack([np.zeros(DIM), weights]).astype(np.float32))

    method = Published(lambda _task: encoders, lambda _v, _l, seed: prefers("dun", "blue"),
                       Allowance(20, 2), 0)  # fmt: skip
    votes = ["amber", "amber", " ", "amber", "blue", "no member", "amber", "amber"]
    inner = scripted(lambda p, n: votes[:n] if p.task.labels else answer(p, n))
    subject = fit_user(replace(bench_of, llm=inner), labels, labels.users[0])
    case = Case(subject, subject.edge)
    assert "dun" in case.task.labels
    assert method.answer(case).texts == ("blue",)
    assert method.choose_from(case, case.sampled("bm25")).texts == ("blue",)
    assert method.answer_greedily(case).texts == ("amber",)
    assert encoders["adapter"].seen[-2:] == [(case.query, "amber"), (case.query, "blue")]
    assert not any(second in {"amber", "blue"} for _, second in encoders["reranker"].seen)
    assert {pool for row in method.rows for pool in row.pools} <= set(POOLS)


def test_no_answer_is_drawn_without_records_where_ours_in_part_are(
    bench_of, labels, method, llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hydra_edge.engine.zero_shot_share", lambda _bundle, _task: 0.25)
    subject = fit_user(bench_of, labels, labels.users[0])
    method.fitted(subject)
    llm.prompts.clear()
    case = Case(subject, subject.edge)
    method.answer(case)
    assert [len(prompt.shots) for prompt in llm.prompts] == [SAMPLING.shown]
    case.sampled("bm25")
    assert [len(prompt.shots) for prompt in llm.prompts[1:]] == [SAMPLING.shown, 0]


def test_blank_samples_are_answered_with_nothing(bench_of, tmp_path: Path, method, scripted):
    data = data_of(tmp_path, *(text_rows(i, 20) for i in range(2)))
    inner = scripted(lambda _p, n: [""] * n)
    rows = (*ROWS, *method.rows)
    task = summarise(run_task(replace(bench_of, llm=inner), data, quiet, rows), 0, rows)
    assert task["rows"]["hydra_published"]["utility"] == 0.0


def test_answers_are_the_same_in_a_replay(
    bench_of, labels, encoders, tmp_path: Path, scripted
) -> None:
    def measure(llm):
        method = Published(lambda _task: encoders, mean_head, Allowance(20, 2), 0)
        rows = (*ROWS, *method.rows)
        return summarise(run_task(replace(bench_of, llm=llm), labels, quiet, rows), 0, rows)

    first = measure(CachedLLM(scripted(answer), tmp_path / "c.jsonl"))
    assert measure(CachedLLM(None, tmp_path / "c.jsonl", name="scripted")) == first


# The card --------------------------------------------------------------------------------------


def card_in(folder: Path, **changes: object) -> Card:
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(name)
    files = {name: hashlib.sha256(name.encode()).hexdigest() for name in FILES}
    card = Card("paper_title", 128, "smollm2", 3, {}, {}, {}, {"a.jsonl": "0" * 16}, files)
    card = replace(card, **changes)
    card.save(folder)
    return card


def test_card_is_read_back_and_verified(tmp_path: Path) -> None:
    card = card_in(tmp_path / "t")
    assert read_cards(tmp_path) == {tmp_path / "t": card}
    verify(tmp_path / "t", card)
    (tmp_path / "t" / "adapter.safetensors").write_text("other")
    with pytest.raises(BundleHashError, match=r"adapter\.safetensors: got sha256"):
        verify(tmp_path / "t", card)
    (tmp_path / "t" / "adapter.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        verify(tmp_path / "t", card)


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("", BundleError, "is no card"),
        ("[]", BundleError, "is no card"),
        ('{"format_version": 2}', BundleVersionError, "got format 2; expected 1"),
        ('{"format_version": 1, "task": "x"}', BundleError, "is no card"),
    ],
)
def test_card_that_is_none_is_refused(tmp_path: Path, text: str, error, match: str) -> None:
    card_in(tmp_path / "t")
    (tmp_path / "t" / CARD_FILE).write_text(text)
    with pytest.raises(error, match=match):
        read_card(tmp_path / "t")


@pytest.mark.parametrize(
    "changes", [{"files": {"../../passwd": "0"}}, {"trained_on": []}, {"max_tokens": "128"}]
)
def test_card_with_foreign_files_or_types_is_refused(tmp_path: Path, changes: dict) -> None:
    card_in(tmp_path / "t", **changes)
    with pytest.raises(BundleError, match="expected files"):
        read_card(tmp_path / "t")


def test_files_trained_on_are_refused_whatever_they_are_called(tmp_path: Path, labels) -> None:
    path = tmp_path / "a.jsonl"
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    card = card_in(tmp_path / "out" / "t", trained_on={"commits.train.jsonl": mark})
    with pytest.raises(BenchError, match=r"trained on it \(as commits\.train\.jsonl\)"):
        Published.open(tmp_path / "out", [path], Allowance(), 0)
    other = write(tmp_path / "b.jsonl", label_rows(7, 20))
    check_not_trained_on([card], [other])
    opened = Published.open(tmp_path / "out", [other], Allowance(), 0)
    with pytest.raises(BenchError, match="of movie_tag; there are those of paper_title"):
        opened.check(["paper_title", "movie_tag"])


def test_folder_without_any_card_says_how_to_train(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="python -m export published"):
        Published.open(tmp_path, [], Allowance(), 0)


def test_opening_imports_no_torch(tmp_path: Path) -> None:
    card_in(tmp_path / "t")
    code = (
        "import sys; from pathlib import Path; from bench.published import Published\n"
        "from export.published.labels import Allowance\n"
        f"Published.open(Path({str(tmp_path)!r}), [], Allowance(), 0)\n"
        "sys.exit(int(bool({'torch', 'transformers'} & set(sys.modules))))"
    )
    root = Path(bench.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
