"""The measurement as a command: options in, tables and JSON out, replayed without a model."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import quality_runner
from bench_users import label_rows, text_rows, write
from rich.console import Console
from typer.testing import CliRunner

import bench.quality
from bench import clock, command
from bench.guard import BenchError
from bench.kept import cached_llm
from bench.published import Published
from bench.quality import app, means_of
from bench.report import Stages, can_plot
from export.published.labels import Allowance
from hydra_edge.errors import BackendError
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN

ROWS = {
    "zero_shot", "random", "rag_k1", "rag_k2", "rag_k4", "dense_k4", "pag", "random_of_b",
    "consensus", "reranker_only", "adapter_only", "shared", "personal", "gated", "shuffled",
    "oracle", "hydra_published",
}  # fmt: skip
INTERVAL = {"mean", "low", "high"}


llm, run, labels = quality_runner.llm, quality_runner.run, quality_runner.labels


def check_schema(figures: dict) -> None:
    """Check the keys that readers of the JSON rely on."""
    assert {
        "version", "base_id", "llm", "seed", "candidates", "shown", "fit_pools", "command",
        "machine", "mean_relative_gain", "mean_relative_gain_any", "tasks", "complete", "left_out",
    } <= set(figures)  # fmt: skip
    assert figures["complete"]
    assert figures["machine"] == clock.machine(timed=False)
    for task in figures["tasks"].values():
        assert task["complete"]
        assert task["best_prompt_only"] in ROWS
        assert task["best_any"] in ROWS
        for key in ("relative_gain", "relative_gain_any", "headroom"):
            assert task[key] is None or isinstance(task[key], float)
        assert len(task["gain_interval"]) == 2
        assert 0.0 <= task["users_helped"] <= 1.0
        assert 0.0 <= task["users_harmed"] <= 1.0
        assert isinstance(task["users"], int)
        assert isinstance(task["queries"], int)
        assert sum(task["switches"].values()) == task["users"]
        for key in ("gain", "personal_minus_shared", "personal_minus_shuffled"):
            assert set(task[key]) == INTERVAL
        assert set(task["rows"]) == ROWS
        assert task["rows"].pop("hydra_published") == {
            "utility": None, "metrics": {}, "llm_calls": 0, "tokens": 0,
        }  # nobody asked for it  # fmt: skip
        for row in task["rows"].values():
            assert set(row) == {"utility", "metrics", "llm_calls", "tokens"}
            assert 0.0 <= row["utility"] <= 1.0
            assert isinstance(row["llm_calls"], int)
            assert isinstance(row["tokens"], int)
            assert row["metrics"]


def test_quality_unknown_label_file_end_to_end(run, labels: Path) -> None:
    figures, output = run("--data", labels)
    check_schema(figures)
    task = figures["tasks"]["colour_of_day"]
    assert task["kind"] == "label"
    assert set(task["rows"]["gated"]["metrics"]) == {"accuracy", "macro_f1"}
    assert task["rows"]["gated"]["utility"] == pytest.approx(
        task["rows"]["gated"]["metrics"]["accuracy"]
    )
    assert (task["users"], task["queries"]) == (3, 9)
    assert figures["mean_relative_gain"] == task["relative_gain"]
    assert "colour_of_day: answer 3 of 3 users" in output, "progress shows without a terminal"
    assert "--data never_seen.jsonl" in figures["command"]
    assert str(labels.parent) not in json.dumps(figures), "no path of this machine"


def test_quality_several_files_and_kinds_in_one_run(run, tmp_path: Path, labels: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", *(text_rows(i, 20) for i in range(3)))
    stars = [
        [row | {"task": "stars", "output": str(1 + (j + i) % 3)}
         for j, row in enumerate(label_rows(i, 20))]
        for i in range(3)
    ]  # fmt: skip
    ratings = write(tmp_path / "stars.jsonl", *stars)
    figures, _ = run("--data", labels, texts, ratings)
    check_schema(figures)
    kinds = {name: task["kind"] for name, task in figures["tasks"].items()}
    assert kinds == {"colour_of_day": "label", "paper_title": "text", "stars": "rating"}
    assert set(figures["tasks"]["stars"]["rows"]["oracle"]["metrics"]) == {"mae", "rmse"}


def test_quality_same_seed_same_bytes_and_replay_needs_no_model(
    run, tmp_path: Path, labels: Path, llm
) -> None:
    run("--data", labels, out="first.json")
    asked = len(llm.prompts)
    run("--data", labels, out="again.json")
    assert len(llm.prompts) == asked, "every answer was cached"
    assert run.opened == ["scripted", "scripted"]
    run("--data", labels, "--replay", out="replay.json")
    assert run.opened == ["scripted", "scripted"]
    first = (tmp_path / "first.json").read_bytes()
    assert (tmp_path / "again.json").read_bytes() == first
    assert (tmp_path / "replay.json").read_bytes() == first


def test_quality_keeps_earlier_figures_of_tasks_not_measured_now(
    run, tmp_path: Path, labels: Path
) -> None:
    texts = write(tmp_path / "texts.jsonl", *(text_rows(i, 20) for i in range(3)))
    both, _ = run("--data", labels, texts, out="both.json")
    earlier = json.loads((tmp_path / "both.json").read_text())
    earlier["base_id"] = "the one before"
    earlier["tasks"]["colour_of_day"]["rows"] = "measured anew, so not kept"
    (tmp_path / "both.json").write_text(json.dumps(earlier))
    now, _ = run("--data", labels, "--keep", tmp_path / "both.json")
    assert now["tasks"]["colour_of_day"] == both["tasks"]["colour_of_day"]
    kept = both["tasks"]["paper_title"] | {
        "base_id": "the one before", "command": both["command"]
    }  # fmt: skip
    assert now["tasks"]["paper_title"] == kept
    for key in ("relative_gain", "relative_gain_any"):  # bases are not averaged
        assert now[f"mean_{key}"] == now["tasks"]["colour_of_day"][key]
    assert "--keep both.json" in now["command"]
    again, _ = run("--data", labels, "--keep", tmp_path / "out.json", out="again.json")
    assert again["tasks"]["paper_title"] == kept, "whose base it was is not forgotten"


def test_quality_keeps_nothing_that_was_measured_otherwise(
    run, tmp_path: Path, labels: Path
) -> None:
    run("--data", labels, out="first.json")
    with pytest.raises(BenchError, match="measured with another fit_pools; expected fit_pools 1"):
        run("--data", labels, "--fit-pools", "1", "--keep", tmp_path / "first.json")
    with pytest.raises(BenchError, match="measured with another queries; expected queries 2"):
        run("--data", labels, "--queries", "2", "--keep", tmp_path / "first.json")
    (tmp_path / "odd.json").write_text("[]")
    for name in ("odd.json", "none.json"):
        with pytest.raises(BenchError, match=f"--keep {name} cannot be read"):
            run("--data", labels, "--keep", tmp_path / name)


def test_quality_replay_of_what_was_never_asked_says_so(run, labels: Path) -> None:
    figures, output = run("--data", labels, "--replay", code=1)
    reason = figures["tasks"]["colour_of_day"]["reason"]
    assert "run once with the model itself" in reason
    assert f"NOT MEASURED: {reason}" in output
    assert output.splitlines()[-1].startswith("3 of 3 users not covered (colour_of_day)")
    assert figures["mean_relative_gain"] is None


def test_quality_task_that_cannot_be_measured_leaves_the_others_theirs(
    run, tmp_path: Path, labels: Path
) -> None:
    texts = write(tmp_path / "texts.jsonl", *(text_rows(i, 20) for i in range(3)))
    whole, _ = run("--data", texts, out="first.json")
    draw = ["--plot"] if can_plot() else []
    figures, _ = run("--data", labels, texts, "--replay", *draw, code=1)
    assert figures["tasks"]["paper_title"] == whole["tasks"]["paper_title"]
    assert not figures["complete"]
    assert not figures["tasks"]["colour_of_day"]["complete"]
    assert figures["mean_relative_gain"] is None


def test_quality_llm_that_fails_everybody_is_a_failure(run, labels: Path, llm) -> None:
    llm.fail_next = 10**6
    figures, output = run("--data", labels, code=1)
    assert figures["tasks"]["colour_of_day"]["reason"].endswith("scripted failure")
    assert "not covered" not in output, "no replay lacks anything"


def test_quality_published_encoders_are_looked_for_before_anybody_is_asked(
    run, labels: Path, llm, monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = Published(lambda _task: {}, None, Allowance(), 0, {"paper_title": {}})
    monkeypatch.setattr(Published, "open", lambda *_: rival)
    with pytest.raises(BenchError, match="no published encoders of colour_of_day; there are those"):
        run("--data", labels, "--published", "enc")
    rival.trained = {"colour_of_day": {}}
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BenchError, match="found no torch"):
        run("--data", labels, "--published", "enc")
    assert llm.prompts == []


def test_quality_figures_without_a_name_have_a_short_one_of_their_own(
    run, tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RUNS", tmp_path / "runs")
    many = [
        write(tmp_path / f"{i}.jsonl", label_rows(0, 12, f"{i}_{'long' * 30}")) for i in range(3)
    ]

    def name_of(*options: object) -> str:
        words = ["--llm", "/models/my own.gguf", "--queries", "3", "--fit-pools", "0", "--no-plot"]
        words += ["--cache", tmp_path / "cache", *options]
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return Path(result.output.splitlines()[-1].removeprefix("written to ")).name

    first = name_of("--data", *many)
    assert first.startswith("quality-my_own.gguf-")
    assert len(first) < 60
    assert name_of("--data", *many) == first
    names = {first, name_of("--data", *many, "--seed", "1"), name_of("--data", *many[:2])}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == names
    assert len(names) == 3


def test_quality_replay_that_lacks_answers_has_no_mean_and_fails(run, tmp_path: Path, llm) -> None:
    rows = [label_rows(i, 24) for i in range(3)]
    texts = write(tmp_path / "texts.jsonl", *(text_rows(i, 20) for i in range(3)))
    whole, _ = run("--data", write(tmp_path / "two.jsonl", *rows[:2]), texts)
    assert whole["complete"]
    assert whole["mean_relative_gain"] is not None
    asked, three = len(llm.prompts), write(tmp_path / "three.jsonl", *rows)
    part, output = run("--data", three, texts, "--replay", out="part.json", code=1)
    assert len(llm.prompts) == asked
    assert not part["complete"]
    assert part["mean_relative_gain"] is part["mean_relative_gain_any"] is None
    task, other = part["tasks"]["colour_of_day"], part["tasks"]["paper_title"]
    # Whom it covers it covers as before, and says that these are not all.
    assert (task["complete"], task["users"], task["users_missing"]) == (False, 2, ["u2"])
    assert list(task["users_failed"]) == ["u2"]
    assert task["rows"] == whole["tasks"]["colour_of_day"]["rows"]
    assert other == whole["tasks"]["paper_title"]
    assert "NOT MEASURED: user u2" in output
    assert "NOT COMPLETE" in output
    last = "1 of 6 users not covered (colour_of_day); run without --replay on a copy of the cache"
    assert output.splitlines()[-1] == last
    kept, _ = run("--data", texts, "--keep", tmp_path / "part.json", out="kept.json")
    assert not kept["complete"]
    assert kept["mean_relative_gain"] is None, "half a task enters no mean later either"
    full, _ = run("--data", three, texts, out="full.json")
    assert full["complete"]
    assert full["mean_relative_gain"] is not None


def test_quality_replay_that_lacks_a_growth_curve_says_so(run, labels: Path) -> None:
    run("--data", labels)
    figures, output = run("--data", labels, "--replay", "--history", "0,4", code=1)
    assert not figures["complete"]
    assert "0 of 3 users and 3 of those for growth not covered (colour_of_day)" in output


def test_quality_counts_users_with_too_few_records(run, tmp_path: Path) -> None:
    rows = [label_rows(i, n) for i, n in enumerate((24, 5, 24, 1, 24))]
    figures, output = run("--data", write(tmp_path / "a.jsonl", *rows))
    task = figures["tasks"]["colour_of_day"]
    assert (task["users"], task["users_available"], task["users_too_short"]) == (3, 3, 2)
    assert "2 more with too few records" in " ".join(output.split())


def test_quality_says_that_text_was_inferred_from_answers_like_labels(run, tmp_path: Path) -> None:
    moods = ("awful", "bad", "meh", "fine", "good", "great")
    rows = [
        [row | {"task": "mood", "output": moods[j % 6]} for j, row in enumerate(label_rows(i, 7))]
        for i in range(2)
    ]
    figures, output = run("--data", write(tmp_path / "a.jsonl", *rows))
    assert figures["tasks"]["mood"]["kind"] == "text"
    assert (
        "mood: inferred as text from 14 answers, 6 distinct; give --task-spec to say otherwise"
        in output.splitlines()
    )


def lamp_of(folder: Path, task: str, *profiles: list[dict[str, object]]) -> Path:
    """Write a LaMP folder with a question for every profile."""
    (folder / task).mkdir(parents=True)
    people = [{"id": str(i), "input": "?", "profile": p} for i, p in enumerate(profiles)]
    (folder / task / "dev_questions.json").write_text(json.dumps(people))
    golds = [{"id": str(i), "output": "?"} for i in range(len(profiles))]
    (folder / task / "dev_outputs.json").write_text(json.dumps({"task": task, "golds": golds}))
    return folder


def test_quality_lamp_tasks_that_cannot_be_measured_enter_no_mean(run, tmp_path: Path) -> None:
    papers = [[{"id": str(i), "title": f"Paper {i} of {u}", "abstract": f"On {i} of {u}"}
               for i in range(12)] for u in range(3)]  # fmt: skip
    tweets = [[{"id": str(i), "text": f"tweet {i} of {u}"} for i in range(12)] for u in range(3)]
    folder = lamp_of(tmp_path / "lamp", "LaMP_5", *papers)
    lamp_of(folder, "LaMP_1", *papers)
    lamp_of(folder, "LaMP_7", *tweets)
    figures, output = run("--lamp", folder)
    assert list(figures["tasks"]) == ["paper_title"]
    assert figures["tasks"]["paper_title"]["users"] == 3
    assert list(figures["left_out"]) == [
        "lamp/LaMP_1/dev_questions.json", "lamp/LaMP_7/dev_questions.json"
    ]  # fmt: skip
    for name, why in (("LaMP_1", "not the references they chose"), ("LaMP_7", "no input of its")):
        assert why in figures["left_out"][f"lamp/{name}/dev_questions.json"]
        assert f"LEFT OUT: lamp/{name}/dev_questions.json" in output
        with pytest.raises(BenchError, match=f"nobody to measure: got {name}.*{why}"):
            run("--lamp", folder / name)


def test_quality_lamp_counts_everyone_and_grows_on_those_with_enough(run, tmp_path: Path) -> None:
    papers = [[{"id": str(i), "title": f"Paper {i} of {u}", "abstract": f"On {i} of {u}"}
               for i in range(n)] for u, n in enumerate((8, 8, 8, 30, 30, 3))]  # fmt: skip
    folder = lamp_of(tmp_path / "lamp", "LaMP_5", *papers)
    figures, _ = run("--lamp", folder, "--users", "2", "--history", "0,20,64")
    task = figures["tasks"]["paper_title"]
    assert (task["users"], task["users_available"], task["users_too_short"]) == (2, 5, 1)
    assert [(p["records"], p["users"]) for p in task["growth"]] == [(0, 2), (20, 2)]


def test_quality_says_the_mean_gains(run, labels: Path) -> None:
    figures, output = run("--data", labels)
    for key, over in (
        ("mean_relative_gain", "the best of the paper's prompt-only answers"),
        ("mean_relative_gain_any", "the best of all prompt-only answers"),
    ):
        assert f"mean relative gain over {over}: {figures[key]:+.1%}" in output


def test_task_without_a_ratio_says_why_there_is_no_mean() -> None:
    """A baseline worth nothing, or a rating without an error: ours may be any better or worse."""
    out = io.StringIO()
    good = {"best_prompt_only": "pag", "best_any": "pag", "relative_gain": 0.25,
            "relative_gain_any": 0.25}  # fmt: skip
    odd = good | {"best_prompt_only": "rag_k1", "relative_gain": None}
    found = means_of({"films": good, "words": odd}, Console(file=out, width=200))
    assert found["mean_relative_gain"] is None
    assert found["mean_relative_gain_any"] == 0.25
    assert found["mean_relative_gain_reason"].endswith("has no error: words's rag_k1")
    assert "mean_relative_gain_any_reason" not in found
    assert f"answers: not known: {found['mean_relative_gain_reason']}" in out.getvalue()
    part = means_of({"films": good, "words": good | {"complete": False}}, Console(file=out))
    assert part["mean_relative_gain_reason"] == "words lacks people who were drawn"


def test_quality_json_that_is_a_folder_is_refused_before_measuring(
    run, tmp_path: Path, labels: Path, llm
) -> None:
    words = ["--data", str(labels), "--llm", "scripted", "--json", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    # The message stands in a box, whose lines break where the folder's name is long.
    assert "is a directory" in " ".join(result.output.replace("│", " ").split())
    assert not run.opened


def test_quality_of_one_user_leaves_out_what_takes_two(run, labels: Path) -> None:
    figures, output = run("--data", labels, "--users", "1")
    task = figures["tasks"]["colour_of_day"]
    assert task["users"] == 1
    assert task["rows"]["shuffled"]["utility"] is None
    assert "over shuffled: not measured" in output
    assert task["personal_minus_shuffled"] == {"mean": None, "low": None, "high": None}
    assert task["gain_interval"] == [None, None]
    assert task["personal_minus_shared"]["mean"] is not None
    assert task["personal_minus_shared"]["low"] is None


def test_stages_on_a_terminal_are_bars() -> None:
    out = io.StringIO()
    with Stages(Console(force_terminal=True, file=out, width=80)) as stages:
        stages.name = "tweet"
        stages("fit", 1, 2)
        stages("fit", 2, 2)
    assert "tweet: fit" in out.getvalue()
    assert "2/2" in out.getvalue()


def test_error_is_one_line_and_a_failure(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-m", "bench.quality", "--data", str(tmp_path / "none.jsonl")],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: none.jsonl cannot be read")
    assert "Traceback" not in result.stderr


def test_quality_growth_is_off_unless_asked_for(run, labels: Path) -> None:
    figures, _ = run("--data", labels)
    assert figures["tasks"]["colour_of_day"]["growth"] == []
    figures, output = run("--data", labels, "--history", "0,4")
    assert [p["records"] for p in figures["tasks"]["colour_of_day"]["growth"]] == [0, 4]
    assert "history of 4 records" in output


def test_quality_training_file_is_refused(
    run, tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, bundle
) -> None:
    mark = hashlib.sha256(labels.read_bytes()).hexdigest()[:16]
    manifest = replace(bundle.manifest, provenance={"trained_on": {"x.train.jsonl": mark}})
    base = replace(bundle, manifest=manifest)
    monkeypatch.setattr(bench.quality, "load_bundle", lambda _path: base)
    with pytest.raises(BenchError, match=r"cannot measure base .*: trained on it"):
        run("--data", labels)


def test_quality_says_how_many_people_training_files_hold(
    run, tmp_path: Path, labels: Path
) -> None:
    part = write(tmp_path / "part.jsonl", label_rows(0, 9), text_rows(1, 24))
    figures, output = run("--data", labels, "--seen-in", part, "--users", "4")
    task = figures["tasks"]["colour_of_day"]
    assert task["users_seen"] == 1
    assert task["seen_in_training"]["queries"]["seen"] == 0, "not a text of theirs is in both"
    assert "colour_of_day: 1 of 4 users measured have records in part.jsonl" in output
    figures, output = run("--data", labels)
    assert figures["tasks"]["colour_of_day"]["users_seen"] is None
    assert "users measured have records in" not in output


def test_cached_llm_keeps_the_models_own_name_for_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted
) -> None:
    inner = scripted(lambda _p, n: ["yes"] * n)
    monkeypatch.setattr("export.cache.open_llm", lambda *_: inner)
    prompt = build_prompt(BUILTIN["paper_title"], "q", [])
    spec = "/models/my.gguf"
    live = cached_llm(spec, tmp_path, replay=False, threads=1)
    live.complete(prompt)
    again = cached_llm(spec, tmp_path, replay=True, threads=1)
    assert again.name == "scripted"
    assert again.complete(prompt)[0].text == "yes"
    with pytest.raises(BackendError, match="run once"):
        again.complete(prompt, n=2)


def test_plot_asked_for_without_matplotlib_says_what_to_install(
    run, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.quality, "can_plot", lambda: False)
    with pytest.raises(BenchError, match="needs matplotlib"):
        run("--data", labels, "--plot")


@pytest.mark.skipif(not can_plot(), reason="matplotlib is in the bench extra")
def test_plots_are_drawn_beside_the_json(run, tmp_path: Path, labels: Path) -> None:
    run("--data", labels, "--history", "0,4", "--plot")
    for name in ("out.rows.png", "out.growth.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_bench_modules_do_not_load_matplotlib() -> None:
    code = "import sys, bench.quality, bench.report; sys.exit('matplotlib' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
