"""How rows answer, what they may see, and what becomes of a user whom the LLM fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bench_users
import numpy as np
import pytest
from bench_users import (
    LABELS,
    QUERIES,
    answer,
    data_of,
    label_rows,
    stores_closed,
    text_rows,
)
from llm_server import Handler, Seen, Server, completion
from llm_server import answer as reply
from progress import quiet

from bench.case import POOLS, PROFILE_TASK, SAMPLING, Case, Sampled, profile_prompt
from bench.guard import BenchError, Watched
from bench.rows import ROWS, Answer, Row
from bench.run import Bench, answer_user, fit_user, grow, lend_heads, run_task
from bench.summary import summarise
from export.cache import CachedLLM
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

NAMES = [
    "zero_shot", "random", "rag_k1", "rag_k2", "rag_k4", "dense_k4", "pag", "random_of_b",
    "consensus", "reranker_only", "adapter_only", "shared", "personal", "gated", "shuffled",
    "oracle",
]  # fmt: skip
llm, labels = bench_users.llm, bench_users.labels


@pytest.fixture
def bench(bundle, hash_encoder, llm) -> Iterator[Bench]:
    with stores_closed():
        yield Bench(bundle, hash_encoder, llm, QUERIES, 4, 0)


def test_rows_are_named_as_the_report_names_them() -> None:
    assert [row.name for row in ROWS] == NAMES
    assert {pool for row in ROWS for pool in row.pools} <= set(POOLS)


def test_rows_see_only_earlier_records_of_the_same_user(bench, labels, llm) -> None:
    run = run_task(bench, labels, quiet)
    order = {r.id: (u.user, i) for u in labels.users for i, r in enumerate(u.records)}
    inputs = {r.input: r.id for u in labels.users for r in u.records}
    asked = [p for p in llm.prompts if p.task.name != PROFILE_TASK.name]
    assert len(run.results) == 3
    assert len(asked) > 100
    for prompt in asked:
        user, place = order[inputs[prompt.query]]
        for shown in prompt.record_ids:
            assert order[shown][0] == user
            assert order[shown][1] < place


def test_bm25_rows_show_its_first_records_in_order(bench, labels, llm) -> None:
    subject = fit_user(bench, labels, labels.users[0])
    case = Case(subject, subject.edge)
    best = [r.id for r in case.by_published_bm25]
    for k in (1, 2, 4):
        next(row for row in ROWS if row.name == f"rag_k{k}")(case)
        assert list(reversed(llm.prompts[-1].record_ids)) == best[:k]
    words = set(case.query.split())
    assert words & set(case.by_published_bm25[0].input.split()) >= {"walk"}


def test_published_bm25_counts_a_word_as_often_as_the_query_repeats_it() -> None:
    texts = (
        "amber stone",
        "blue stone",
        "a plain one",
        "one more",
        "blue and amber and on it goes",
    )
    records = tuple(Record(text, "x", "t", id=text) for text in texts)
    best = [
        Case.by_published_bm25.func(
            SimpleNamespace(history=SimpleNamespace(records=records), query=query)
        )[0].id
        for query in ("amber amber blue", "blue amber blue")
    ]
    assert best == ["amber stone", "blue stone"]


def test_random_row_is_drawn_by_seed_user_and_query(bench, labels) -> None:
    subject = fit_user(bench, labels, labels.users[0])
    first = Case(subject, subject.edge).at_random
    assert Case(subject, subject.edge).at_random == first
    assert len({r.id for r in first}) == SAMPLING.shown
    other = fit_user(replace(bench, seed=1), labels, labels.users[0])
    assert Case(other, other.edge).at_random != first


def test_query_joins_the_history_only_after_its_answer(bench, labels) -> None:
    subject = fit_user(bench, labels, labels.users[0])
    assert len(Case(subject, subject.edge).history) == subject.edge
    answer_user(subject, ROWS[:1])
    assert len(subject.engine.store.records()) == len(subject.user.records)


@pytest.mark.parametrize("offset", [0, 1])
def test_case_with_the_query_or_a_later_record_in_its_history_is_refused(
    bench, labels, offset: int
) -> None:
    subject = fit_user(bench, labels, labels.users[0])
    subject.engine.store.add([subject.user.records[subject.edge + offset]])
    with pytest.raises(BenchError, match="Leak at query"):
        Case(subject, subject.edge)


def test_case_whose_engine_puts_the_target_before_the_prompt_is_refused(bench, labels) -> None:
    subject = fit_user(bench, labels, labels.users[0])
    case = Case(subject, subject.edge)
    engine = subject.engine
    build = engine.prompt
    engine.prompt = lambda *args: replace(build(*args), system="It is amber.")
    with pytest.raises(BenchError, match="more than the user's profile"):
        case.ask([])


def test_case_whose_closed_set_was_completed_by_the_target_is_refused(bench, labels) -> None:
    user = labels.users[0]
    user = replace(user, records=(*user.records[:-1], replace(user.records[-1], output="zinc")))
    subject = fit_user(bench, labels, user)
    subject.engine.store.add(user.records[subject.edge : -1])
    case = Case(subject, len(user.records) - 1)
    assert "zinc" not in case.task.labels
    case.ask([])
    case.task = replace(case.task, labels=(*case.task.labels, "zinc"))
    with pytest.raises(BenchError, match="closed set holds 'zinc', not answered before"):
        case.ask([])


def test_fitting_that_is_shown_a_query_is_refused(bench, labels) -> None:
    user = labels.users[0]
    with pytest.raises(BenchError, match="history holds the query itself"):
        fit_user(bench, labels, user, user.records[: -QUERIES + 1])


def test_watched_llm_refuses_a_prompt_that_shows_a_query(labels, llm) -> None:
    records = labels.users[0].records
    watched = Watched(llm, {records[-1].id})
    watched.complete(build_prompt(labels.spec, "a query", records[:2]))
    with pytest.raises(BenchError, match="Leak in fitting: a prompt shows u0-25"):
        watched.complete(build_prompt(labels.spec, "a query", records[-2:]))
    assert len(llm.prompts) == 1


def test_profile_stands_before_the_prompt_of_its_row_only(bench, labels, llm) -> None:
    run_task(bench, labels, quiet)
    about = [p for p in llm.prompts if p.system]
    assert {p.system for p in about} == {"About me: Likes to be brief."}
    assert len(about) == 9


def test_row_added_to_the_table_is_measured_like_the_others(bench, labels) -> None:
    def always_blue(case: Case, sampled: Sampled) -> Answer:
        assert [r.id for r in sampled.pool.shown] == [r.id for r in case.by_bm25]
        return Answer.of("blue", sampled.completions)

    rows = (*ROWS, Row("always_blue", always_blue, ("bm25",)))
    task = summarise(run_task(bench, labels, quiet, rows), 0, rows)
    truths = [r.output for u in labels.users for r in u.records[-QUERIES:]]
    assert task["rows"]["always_blue"]["utility"] == pytest.approx(truths.count("blue") / 9)
    assert task["rows"]["always_blue"]["llm_calls"] == 8 * 9


def test_shuffled_row_answers_with_another_users_heads(bench, labels) -> None:
    subjects = [fit_user(bench, labels, user) for user in labels.users]
    lend_heads(subjects)
    assert [s.donor.user.user for s in subjects] == ["u1", "u2", "u0"]
    case = Case(subjects[0], subjects[0].edge)
    own = case.head("adapter", "personal").weight
    lent = case.head("adapter", "personal", of=subjects[0].donor).weight
    np.testing.assert_array_equal(lent, subjects[1].heads["adapter"].weight)
    assert not np.array_equal(own, lent)
    # The row itself: with a donor whose head prefers the opposite, the answer turns.
    personal = next(row for row in ROWS if row.name == "personal")(case)
    head = subjects[0].heads["adapter"]
    assert head is not None
    subjects[0].donor.heads = {"adapter": replace(head, weight=-head.weight)}
    shuffled = next(row for row in ROWS if row.name == "shuffled")(case)
    assert personal is not None
    assert shuffled is not None
    assert shuffled.texts != personal.texts


def test_each_rows_pool_shows_what_its_own_reranker_chooses(bench, labels) -> None:
    subjects = [fit_user(bench, labels, user) for user in labels.users]
    lend_heads(subjects)
    head = subjects[0].heads["reranker"]
    assert head is not None
    # The gate let neither personal head in: only the rows that force one may use it.
    own = replace(head, switch="shared", weight=-head.weight)
    others = replace(head, switch="shared", weight=np.roll(head.weight, 3))
    subjects[0].heads = {"reranker": own, "adapter": None}
    subjects[1].heads = {"reranker": others, "adapter": None}
    case = Case(subjects[0], subjects[0].edge)

    def chosen(weight) -> list[str]:
        active = replace(case.engine.shared(case.task, "reranker"), weight=weight)
        ranked = case.engine.rank(active, case.query, case.vector, case.history, k=4)
        return [r.record.id for r in ranked]

    shared = chosen(case.engine.shared(case.task, "reranker").weight)
    wanted = {"gated": shared, "shared": shared, "personal": chosen(own.weight),
              "shuffled": chosen(others.weight)}  # fmt: skip
    assert len({tuple(ids) for ids in wanted.values()}) == 3
    for name, ids in wanted.items():
        assert [r.id for r in case.sampled(name).pool.shown] == ids, name
    assert case.sampled("gated") is case.sampled("shared")  # nothing is asked twice


def test_rows_of_heads_answer_from_pools_of_their_own_heads() -> None:
    pools = {row.name: row.pools for row in ROWS}
    for name in ("shared", "personal", "gated", "shuffled"):
        assert pools[name] == (name,)


def test_shuffled_row_of_a_user_alone_is_not_measured(bench, tmp_path: Path) -> None:
    run = run_task(bench, data_of(tmp_path, label_rows(0, 26)), quiet)
    task = summarise(run, 0)
    assert task["rows"]["shuffled"]["utility"] is None
    assert task["personal_minus_shuffled"] == {"mean": None, "low": None, "high": None}


def test_costs_are_what_each_row_alone_would_have_asked(bench, labels) -> None:
    task = summarise(run_task(bench, labels, quiet), 0)
    n = task["queries"]
    calls = {name: row["llm_calls"] for name, row in task["rows"].items()}
    assert n == 9
    assert calls["zero_shot"] == calls["rag_k4"] == calls["reranker_only"] == n
    assert calls["pag"] == n + task["users"]  # one profile a user
    assert calls["gated"] == calls["oracle"] == calls["adapter_only"] == 8 * n
    assert task["rows"]["pag"]["tokens"] > task["rows"]["rag_k4"]["tokens"]
    assert 0 < task["fit_llm_calls"] <= 3 * 4 * 8


def test_queries_the_base_has_read_are_told_apart(bench, labels) -> None:
    """The texts of one user's queries were somebody else's, too."""
    run = run_task(bench, labels, quiet)
    first = run.results[0]
    whole = summarise(run, 0)
    assert whole["seen_in_training"] is None
    told = summarise(run, 0, seen={query.text for query in first.queries})["seen_in_training"]
    assert told["queries"] == {"seen": QUERIES, "unseen": whole["queries"] - QUERIES}
    for name, values in whole["rows"].items():
        if values["utility"] is None:
            continue
        parts = told["rows"][name]
        assert parts["seen"] == pytest.approx(first.utilities(name).mean())
        assert values["utility"] == pytest.approx((parts["seen"] + 2 * parts["unseen"]) / 3)


def test_profile_is_asked_once_a_user_from_earlier_records_only(bench, labels, llm) -> None:
    run_task(bench, labels, quiet)
    asked = [p for p in llm.prompts if p.task.name == PROFILE_TASK.name]
    assert len(asked) == 3
    for user in labels.users:
        (mine,) = [p for p in asked if f"of {user.user[1:]} -> " in p.query]
        assert user.records[-QUERIES - 1].input in mine.query
        assert all(r.input not in mine.query for r in user.records[-QUERIES:])


def test_profile_prompt_is_short_enough_for_small_models() -> None:
    records = [Record("word " * 500, "title " * 300)] * 60
    prompt = profile_prompt(BUILTIN["film_rating"], records)
    assert len(prompt.completion_text().split()) < 350


def test_oracle_and_random_are_bounds_of_the_same_pool(bench, labels) -> None:
    run = run_task(bench, labels, quiet)
    for result in run.results:
        for query in result.queries:
            u = query.utilities
            assert u["oracle"] >= max(u["random_of_b"], u["consensus"], u["reranker_only"])
            assert 0.0 <= u["random_of_b"] <= 1.0


def test_consensus_of_labels_is_the_majority(bench, labels, scripted) -> None:
    votes = ["blue", "amber", "amber", "dun", "amber", "blue", "dun", "amber"]
    inner = scripted(lambda p, n: votes[:n] if p.task.labels else answer(p, n))
    subject = fit_user(replace(bench, llm=inner), labels, labels.users[0])
    case = Case(subject, subject.edge)
    rows = {row.name: row for row in ROWS}
    assert rows["consensus"](case).texts == ("amber",)
    spread = rows["random_of_b"](case)
    assert spread is not None
    assert dict(zip(spread.texts, spread.weights, strict=True)) == {
        "amber": 0.5, "blue": 0.25, "dun": 0.25,
    }  # fmt: skip


def test_answers_of_blanks_score_zero_instead_of_failing(bench, tmp_path: Path, scripted) -> None:
    data = data_of(tmp_path, *(text_rows(i, 20) for i in range(2)))
    inner = scripted(lambda _p, n: [""] * n)
    run = run_task(replace(bench, llm=inner), data, quiet)
    assert summarise(run, 0)["rows"]["gated"]["utility"] == 0.0


def test_answer_of_several_texts_is_measured_as_an_expectation() -> None:
    task = BUILTIN["movie_tag"]
    drawn = Answer(("comedy", "action"), (0.75, 0.25), 1, 1.0)
    assert drawn.utility("comedy", task) == 0.75
    best = replace(drawn, best=True)
    assert best.resolved("action", task).texts == ("action",)
    assert best.utility("action", task) == 1.0
    assert Answer.of("x", [Completion("x", tokens=3)]).tokens == 3.0


def test_user_whom_the_llm_fails_is_reported_and_the_others_measured(
    bench, labels, scripted
) -> None:
    def fails(prompt, n):
        if "of 1" in prompt.query and prompt.task.labels:
            raise BackendError("burnt")
        return answer(prompt, n)

    run = run_task(replace(bench, llm=scripted(fails)), labels, quiet)
    assert run.failed == {"u1": "burnt"}
    assert [r.user for r in run.results] == ["u0", "u2"]
    assert summarise(run, 0)["users_failed"] == {"u1": "burnt"}


@pytest.mark.parametrize(
    ("sampled", "outside"),
    [(["amber", "It is blue.", "Something Else", "amber or blue", *"123"], 6 / 8), (["No"] * 7, 1)],
)
def test_run_task_remote_answer_outside_the_set_counts_as_wrong(
    bench, labels, tmp_path: Path, sampled: list[str], outside: float
) -> None:
    def act(handler: Handler, seen: Seen) -> None:
        given = sampled if seen.body["temperature"] else ["Something Else"]
        reply(completion(*given[: seen.body.get("n", 1)]))(handler, seen)

    path, data = tmp_path / "m.jsonl", replace(labels, users=labels.users[:2])
    with Server() as server:
        server.otherwise = act
        llm = CachedLLM(OpenAIApi("m", base_url=server.url), path)
        run = run_task(replace(bench, llm=llm), data, quiet)
        llm.close()
    assert run.failed == {}
    assert len(run.results) == 2
    task = summarise(run, 0)
    for name in ("zero_shot", "rag_k4", "reranker_only"):
        assert (task["rows"][name]["utility"], task["rows"][name]["llm_calls"]) == (0.0, 6), name
    assert task["rows"]["gated"]["llm_calls"] == 8 * 6
    for query in (query for result in run.results for query in result.queries):
        drawn = query.answers["random_of_b"]
        assert dict(zip(drawn.texts, drawn.weights, strict=True))[""] == outside
        for name in ("gated", "consensus", "oracle"):
            assert (query.answers[name].texts == ("",)) is (outside == 1), name
    again = run_task(replace(bench, llm=CachedLLM(None, path, name=llm.name)), data, quiet)
    assert summarise(again, 0) == task


@pytest.mark.parametrize(
    ("task", "answers"),
    [("product_rating", "1 9 3 4 8 6 7 2 10 5"), ("film_rating", "4 1 5 3 2"), ("half", "4.5 1 3")],
)
def test_relative_gain_of_a_rating_is_that_of_its_mean_error(
    bench, tmp_path: Path, task: str, answers: str
) -> None:
    # Everyone but the first keeps to the low end: their own answers would be a shorter scale.
    given = answers.split()
    rows = [
        [row | {"task": task, "output": given[(i * i + u) % len(given)] if not u else given[i % 2]}
         for i, row in enumerate(label_rows(u, 20))]
        for u in range(3)
    ]  # fmt: skip
    data = data_of(tmp_path, *rows)
    run = run_task(bench, data, quiet)
    found = summarise(run, 0)
    mae = {name: row["metrics"].get("mae") for name, row in found["rows"].items()}
    for baseline, gain in (
        ("best_prompt_only", "relative_gain"),
        ("best_any", "relative_gain_any"),
    ):
        assert mae[found[baseline]] > 0.0
        assert found[gain] == pytest.approx(1.0 - mae["gated"] / mae[found[baseline]])
    assert {q.task.span for r in run.results for q in r.queries} == {data.spec.span}


def test_answers_that_did_not_come_are_told_from_prompts_without_room(
    bench, labels, scripted
) -> None:
    def fails(prompt, n):
        if prompt.task.labels and "of 1" in prompt.query:
            raise BackendError("burnt")
        if "of 2" in prompt.query:
            raise ContextLengthError("no room")
        return answer(prompt, n)

    run = run_task(replace(bench, llm=scripted(fails)), labels, quiet)
    assert sorted(run.failed) == ["u1", "u2"]
    assert run.missing == {"u1"}
    assert not summarise(run, 0)["complete"]


def test_one_failure_in_fitting_fails_the_user(bench, labels, llm) -> None:
    # On a device a fit goes on with fewer pools; here that would be another measurement.
    llm.fail_next = 1
    run = run_task(bench, labels, quiet)
    assert run.failed == {"u0": "scripted failure"}


def test_user_whose_answers_without_records_are_missing_is_not_measured(
    bench, labels, scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A device takes the pool without them; here that would be another measurement.
    monkeypatch.setattr("hydra_edge.engine.zero_shot_share", lambda _bundle, _task: 0.25)

    def fails(prompt, n):
        if n == 2 and not prompt.shots and "of 1" in prompt.query:
            raise BackendError("not kept")
        return answer(prompt, n)

    given = replace(bench, llm=scripted(fails), fit_pools=0)
    run = run_task(given, labels, quiet)
    assert run.failed == {"u1": "not kept"}
    assert run.missing == {"u1"}
    assert not summarise(run, 0)["complete"]


def test_task_nobody_was_measured_for_is_not_complete_and_says_why(bench, labels, llm) -> None:
    llm.fail_next = 10**6
    run = run_task(bench, labels, quiet)
    found = summarise(run, 0)
    assert (found["complete"], found["users"], found["users_available"]) == (False, 0, 3)
    assert found["reason"].startswith("Nobody of colour_of_day could be measured; the first of 3")
    assert found["reason"].endswith("failed with: scripted failure")


def test_growth_is_measured_on_the_same_users_at_every_size(bench, tmp_path: Path, llm) -> None:
    lengths = (30, 30, 30, 30, 30, 14)
    data = data_of(tmp_path, *(label_rows(i, n) for i, n in enumerate(lengths)))
    run = run_task(bench, data, quiet)
    asked = len(llm.prompts)
    grow(bench, run, (0, 4, 16, 64), quiet)
    assert [(p["records"], p["users"]) for p in run.growth] == [(0, 5), (4, 5), (16, 5)]
    for p in run.growth:
        assert 0.0 <= p["low"] <= p["utility"] <= p["high"] <= 1.0
    place = {r.id: i for u in data.users for i, r in enumerate(u.records)}
    edge = 30 - QUERIES
    shown = [place[i] for p in llm.prompts[asked:] for i in p.record_ids]
    assert min(shown) >= edge - 16, "only the records just before the queries"
    assert max(shown) < edge, "no query joins the history of another"


def test_growth_draws_anew_from_all_who_have_enough_records(bench, tmp_path: Path) -> None:
    lengths = (14, 14, 30, 30, 30)
    data = data_of(tmp_path, *(label_rows(i, n) for i, n in enumerate(lengths)))
    short = tuple(user for user in data.able if len(user.records) == 14)
    run = run_task(bench, replace(data, users=short), quiet)
    grow(bench, run, (0, 16), quiet)
    assert [(p["records"], p["users"]) for p in run.growth] == [(0, 2), (16, 2)]


def test_unknown_label_task_closed_set_holds_what_all_users_answered(bench, labels) -> None:
    run = run_task(bench, labels, quiet)
    assert {q.task.labels for r in run.results for q in r.queries} == {LABELS}


def test_queries_answered_before_are_counted(bench: Bench, tmp_path: Path) -> None:
    """A record that is there twice, under two ids, may show a query its own answer."""
    once = [row | {"input": f"{row['input']} once"} for row in label_rows(0, 20)]
    twice = [row | {"id": f"{row['id']}-{n}", "seq": 2 * int(row["seq"]) + n}
             for row in once for n in (0, 1)]  # fmt: skip
    for rows, twins in ((once, 0), (twice, 2)):  # of the last three, two are second ones
        run = run_task(bench, data_of(tmp_path, rows), quiet)
        assert sum(q.target_in_history for q in run.results[0].queries) == twins
        assert summarise(run, 0)["targets_in_history"] == twins
