"""Who and what a measurement loses: it says so, and is no measurement of all."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import quality_runner
from bench_users import QUERIES, answer, data_of, label_rows, text_rows, write
from progress import quiet
from rich.console import Console
from typer.testing import CliRunner

from bench import borrowed, picks, quality
from bench.report import Stages
from bench.run import Bench, grow, run_task
from export import __main__ as export_main
from hydra_edge.errors import BackendError

llm, run, labels = quality_runner.llm, quality_runner.run, quality_runner.labels


def broken_for(user: int, scripted):
    """Make an LLM that is gone when it is asked for this user."""

    def fails(prompt, n):
        if f"of {user}" in prompt.query and prompt.task.labels:
            raise BackendError("connection refused")
        return answer(prompt, n)

    return scripted(fails)


def test_quality_llm_that_breaks_down_half_way_is_no_whole_measurement(
    run, labels: Path, scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("export.cache.open_llm", lambda *_: broken_for(1, scripted))
        part, output = run("--data", labels, "--users", "4", code=1)
    task = part["tasks"]["colour_of_day"]
    assert (part["complete"], task["complete"]) == (False, False)
    assert part["mean_relative_gain"] is part["mean_relative_gain_any"] is None
    assert (task["users"], task["users_missing"]) == (3, ["u1"])
    assert task["users_failed"] == {"u1": "connection refused"}
    assert "NOT MEASURED: user u1: connection refused" in output
    assert output.splitlines()[-1] == (
        "1 of 4 users lost to the LLM (colour_of_day); run the same again: what was answered is "
        "kept"
    )
    replayed, _ = run("--data", labels, "--users", "4", "--replay", out="replay.json", code=1)
    assert replayed["tasks"]["colour_of_day"]["rows"] == task["rows"]
    whole, _ = run("--data", labels, "--users", "4")
    assert whole["complete"]
    assert whole["mean_relative_gain"] is not None


def test_quality_llm_that_breaks_down_in_growth_alone_is_told(
    run, labels: Path, scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--data", labels)
    monkeypatch.setattr("export.cache.open_llm", lambda *_: broken_for(1, scripted))
    part, output = run("--data", labels, "--history", "0,4", code=1)
    assert not part["complete"]
    assert "0 of 3 users and 1 of those for growth lost to the LLM (colour_of_day)" in output


def test_quality_user_lost_in_fitting_is_shown_and_written(run, labels: Path, llm) -> None:
    llm.fail_next = 1
    figures, output = run("--data", labels, code=1)
    assert not figures["complete"]
    (failed,) = figures["tasks"]["colour_of_day"]["users_failed"].items()
    assert failed[1] == "scripted failure"
    assert f"NOT MEASURED: user {failed[0]}" in output


def test_quality_people_with_as_few_records_as_data_sets_have_are_measured(
    run, tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", *(label_rows(i, 8) for i in range(3)))
    figures, _ = run("--data", few, queries=())
    task = figures["tasks"]["colour_of_day"]
    assert (task["users"], task["queries"], task["kind"]) == (3, 15, "label")


def test_quality_task_of_short_histories_leaves_the_others_theirs(run, tmp_path: Path) -> None:
    short = write(tmp_path / "short.jsonl", *(label_rows(i, 8) for i in range(3)))
    texts = write(tmp_path / "texts.jsonl", *(text_rows(i, 20) for i in range(3)))
    figures, output = run("--data", short, texts, "--queries", "7")
    assert list(figures["tasks"]) == ["paper_title"]
    assert figures["complete"]
    assert list(figures["left_out"]) == ["colour_of_day"]
    assert "LEFT OUT: colour_of_day: No user of colour_of_day can be measured: the long" in output


def test_quality_sizes_of_history_that_nobody_has_are_named(run, labels: Path) -> None:
    figures, output = run("--data", labels, "--history", "4,64,128")
    task = figures["tasks"]["colour_of_day"]
    assert [point["records"] for point in task["growth"]] == [4]
    assert task["growth_left_out"].startswith("64, 128: a curve of growth takes 3 people with as ")
    assert f"NOT MEASURED: history of {task['growth_left_out']}" in output
    figures, output = run("--data", labels, "--history", "64")
    assert figures["tasks"]["colour_of_day"]["growth"] == []
    assert "NOT MEASURED: history of 64: a curve" in output


def test_grow_people_of_one_name_have_each_their_own_records(
    bundle, hash_encoder, llm, tmp_path: Path
) -> None:
    data = data_of(tmp_path, label_rows(0, 30), label_rows(1, 14))
    namesakes = tuple(type(u)("same", u.task, u.records) for u in data.able)
    data = type(data)(data.spec, data.custom, namesakes, namesakes)
    bench = Bench(bundle, hash_encoder, llm, QUERIES, 0, 0)
    measured = run_task(bench, data, quiet)
    asked = len(llm.prompts)
    grow(bench, measured, (4,), quiet)
    assert [(p["records"], p["users"]) for p in measured.growth] == [(4, 2)]
    place = {r.id: i - len(u.records) + QUERIES for u in namesakes for i, r in enumerate(u.records)}
    shown = {place[i] for p in llm.prompts[asked:] for i in p.record_ids}
    assert shown == {-4, -3, -2, -1}
    assert all(p.record_ids for p in llm.prompts[asked:])


@pytest.mark.parametrize(
    "words",
    [
        (quality.app, "--data", "none.jsonl"),
        (picks.app, "--data", "none.jsonl"),
        (borrowed.app, "--data", "none.jsonl"),
        *(
            (export_main.app, name, "--data", "none", "--out", "out")
            for name in ("build", "published")
        ),
        (export_main.app, "ladder", "--data", "none"),
    ],
)
def test_seed_below_zero_is_refused_before_anything_is_read(words: tuple[object, ...]) -> None:
    app, *rest = words
    done = CliRunner().invoke(app, [*rest, "--seed", "-1"])
    assert done.exit_code == 2, done.output
    assert "--seed" in done.output


def test_quality_task_named_like_markup_is_shown_and_written(run, tmp_path: Path) -> None:
    rows = [[row | {"task": "mail [/re] topic"} for row in label_rows(i, 20)] for i in range(3)]
    figures, output = run("--data", write(tmp_path / "a.jsonl", *rows))
    (name,) = figures["tasks"]
    assert "[/re]" in name
    assert f"{name} (label): 3 of 3 users" in " ".join(output.split())


def test_stages_of_a_name_like_markup_are_bars() -> None:
    out = io.StringIO()
    with Stages(Console(force_terminal=True, file=out, width=80)) as stages:
        stages.name = "mail [/re]"
        stages("fit", 1, 1)
    assert "mail [/re]: fit" in out.getvalue()
