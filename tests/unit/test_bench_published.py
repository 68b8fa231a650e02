"""HYDRA as published beside ours: what it is fitted on, its row, and what it is opened from."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bench_users
import numpy as np
import pytest
from bench_users import QUERIES, answer, data_of, label_rows, stores_closed, text_rows, write
from progress import quiet
from published_items import DIM, WordPairs, card_in, mean_head

import bench.published
from bench.case import POOLS, SAMPLING, Case
from bench.guard import BenchError
from bench.published import Published, check_not_trained_on
from bench.rows import ROWS
from bench.run import Bench, fit_user, run_task
from bench.summary import summarise
from export.cache import CachedLLM
from export.published.head import Head
from export.published.labels import (
    LISTED,
    Allowance,
    LeakError,
    PseudoQuery,
    record_text,
    shortlist,
)
from hydra_edge.errors import BundleError

TRAINED = {"users": 30, "roles": {"adapter": {"steps": 140}}, "files": {}}
llm, labels = bench_users.llm, bench_users.labels


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


def test_cost_of_our_own_fit_of_the_same_records_stands_beside(
    bench_of, labels, method, llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent, now, fitted = iter([3.0, 0.5, 0.25, 0.75]), [0.0], []

    def fit_task(engine, task, **options):
        fitted.append((task, [r.id for r in engine.store.records(task=task)], options["llm"]))
        now[0] += next(spent)

    clock = SimpleNamespace(process_time=lambda: now[0], perf_counter=lambda: 0.0)
    monkeypatch.setattr(bench.published, "time", clock)
    monkeypatch.setattr(bench.published, "fit_task", fit_task)
    subjects = [fit_user(bench_of, labels, user) for user in labels.users[:2]]
    # Even if the store has grown by then: both sides fit on what came before the first query.
    subjects[0].engine.store.add(labels.users[0].records[subjects[0].edge :])
    for subject in subjects:
        method.fitted(subject)
    ours = method.costs(labels.name)["ours"]
    lengths = [len(subjects[0].engine.features[role].names) for role in ("reranker", "adapter")]
    assert ours == {
        "weight_bytes_per_user": 4 * sum(lengths),
        "bytes_per_user": 4 * sum(n + n * n for n in lengths),
        "head_processor_seconds": 0.625,
        "vector_processor_seconds": 1.25,
    }
    assert fitted == [
        (labels.name, [r.id for r in s.user.records[: s.edge]], None)
        for s in subjects
        for _ in range(2)
    ]


def test_bytes_stated_of_our_heads_are_those_the_store_holds(bench_of, labels) -> None:
    subject = fit_user(bench_of, labels, labels.users[0])
    heads = [state for state in subject.heads.values() if state is not None]
    assert len(heads) == 2
    cost = bench.published.our_cost(subject)
    assert cost.weight_bytes == sum(head.weight.nbytes for head in heads)
    assert cost.size_bytes == sum(head.weight.nbytes + head.precision.nbytes for head in heads)


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


# Opened from a folder -------------------------------------------------------------------------


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
