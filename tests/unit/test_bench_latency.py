"""Measuring speed: the numbers are what was run, the keys stay, the rivals really run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bench import (
    clock,
    command,
    fits,
    latency,
    memory,
    pasts,
    peers,
    ranking,
    scale,
    soak,
    starts,
)
from bench.guard import BenchError
from bench.report import need
from hydra_edge.bundle import Bundle
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store


@pytest.fixture(autouse=True)
def _wall_clock_afterwards():
    yield
    clock.use_clock("wall")


def told(*times: float) -> clock.Sample:
    return clock.Sample(tuple(times))


def test_sample_quantiles_are_of_the_runs_taken():
    found = told(*range(1, 101)).summary()

    assert found == {"n": 100, "p50_ms": 50.5, "p95_ms": 96, "p99_ms": 100}
    assert told(3.0).summary() == {"n": 1, "p50_ms": 3.0, "p95_ms": 3.0, "p99_ms": 3.0}


def test_ratio_is_the_median_over_pairs_not_of_medians():
    pairs = clock.Pairs(told(1.0, 10.0, 100.0), told(2.0, 200.0, 300.0))

    assert pairs.ratio == 3.0
    assert pairs.summary()["pairs"] == 3


def test_by_turns_alternates_and_counts_the_pairs():
    order: list[tuple[str, int]] = []
    clock.by_turns(lambda i: order.append(("a", i)), lambda i: order.append(("b", i)), pairs=3)

    assert order == [(side, i) for i in range(3) for side in "ab"]


def test_clock_cpu_counts_work_of_child_processes():
    clock.use_clock("cpu")
    started = clock.now_s()
    starts.run_python("sum(i * i for i in range(2_000_000))")

    assert clock.clock_name() == "cpu"
    assert clock.now_s() > started


def test_bench_has_one_thread_of_blas_before_numpy_is_there():
    code = (
        "import os, sys, bench\n"
        "assert 'numpy' not in sys.modules\n"
        "assert os.environ['OPENBLAS_NUM_THREADS'] == '1'"
    )
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=root).returncode == 0


def test_soak_tells_cores_and_memory_where_there_is_no_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("psutil")  # which needs sysconf itself, once
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delattr(os, "sysconf")  # asked for the size of /proc's pages
    counted = {"lost": 0, "crossed": 0, "failed": 0, "left_running": 0}
    counted |= {"answered": 4, "served_by_the_llm": 4}
    monkeypatch.setattr(
        soak, "soak", lambda *_, **__: counted | {"rss_mb": {"after": soak._rss_mb()}}
    )
    done = CliRunner().invoke(soak.app, ["--out", str(tmp_path / "soak.json"), "--clients", "3"])
    found = json.loads((tmp_path / "soak.json").read_text())

    assert done.exit_code == 0, done.output
    assert found["command"] == "python -m bench.soak --clients 3"
    assert found["cores"] == clock.machine()["cores"] == os.cpu_count()
    assert found["rss_mb"]["after"] > 10


def test_clock_unknown_is_refused():
    with pytest.raises(BenchError, match="expected one of wall, cpu"):
        clock.use_clock("sun")


def test_sections_only_those_wanted_in_their_order():
    assert latency.sections_of("import, rank") == ("rank", "import")
    assert latency.sections_of("") == latency.SECTIONS
    with pytest.raises(BenchError, match="'speed'"):
        latency.sections_of("speed")


def test_verdicts_ratios_must_reach_and_times_must_stay_below():
    figures = {
        "rank": {"p50_ms": {"1000": 8.5}, "cross_encoder_over_rank": 30.0},
        "import": {"records_per_s": 7000},
    }

    assert list(latency.verdicts(figures)) == [
        ("rank.p50_ms.1000", 8.5, "<= 8", False),
        ("rank.cross_encoder_over_rank", 30.0, ">= 25", True),
        ("import.records_per_s", 7000.0, ">= 8000", False),
    ]


def run_latency(*options: object):
    return CliRunner().invoke(latency.app, [str(option) for option in options])


def test_latency_stopped_run_keeps_the_sections_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stopped(*_, **__):
        raise BenchError("a process to be timed failed")

    monkeypatch.setattr(starts, "measure", stopped)
    monkeypatch.setattr(fits, "measure", lambda *_, **__: {"warm_ms": 50.0})
    path = tmp_path / "latency.json"
    monkeypatch.setattr(command, "RUNS", tmp_path)
    done = run_latency("--only", "fit,startup")
    found = json.loads(path.read_text())

    assert isinstance(done.exception, BenchError)
    assert found["fit"] == {"warm_ms": 50.0}
    assert found["command"] == "python -m bench.latency --only fit,startup"
    assert [row["figure"] for row in found["targets"]] == ["fit.warm_ms"]


@pytest.mark.parametrize(
    ("options", "missing"),
    [(("--only", "fit"), "sklearn"), (("--only", "startup"), "psutil"),
     (("--only", "import", "--plot"), "matplotlib")],
)  # fmt: skip
def test_latency_missing_packages_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], missing: str
):
    find = latency.need.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == missing else find(n))
    done = run_latency(*options)

    assert isinstance(done.exception, BenchError)
    assert f"found no {missing}; expected the packages of the bench extra" in str(done.exception)
    assert "measuring" not in done.output


def test_need_names_only_what_is_not_there():
    need("numpy", "json")
    with pytest.raises(BenchError, match="found no nowhere_to_be_found; expected"):
        need("numpy", "nowhere_to_be_found")


def test_latency_data_too_short_is_told_before_anything_is_measured(tmp_path: Path):
    done = run_latency("--quick", "--data", lines_in(tmp_path, 87))

    assert isinstance(done.exception, BenchError)
    assert "got 87 records; expected 88, one for each query" in str(done.exception)
    assert "measuring" not in done.output


def test_plot_of_figures_is_written(tmp_path: Path):
    pytest.importorskip("matplotlib")
    path = latency.plot({"import": {"records_per_s": 9000.0}}, tmp_path / "a.png")

    assert path.read_bytes().startswith(b"\x89PNG")


def test_synthetic_same_seed_same_texts_all_different():
    records = pasts.synthetic(300, seed=4)

    assert records == pasts.synthetic(300, seed=4)
    assert records[0] != pasts.synthetic(1, seed=5)[0]
    assert len({text for r in records for text in (r.input, r.output)}) == 600


def lines_in(folder: Path, n: int) -> Path:
    """Write a file of ``n`` records."""
    lines = [
        {"user": "u", "id": f"x{i}", "seq": i, "task": "t", "input": f"in {i}", "output": "o"}
        for i in range(n)
    ]
    path = folder / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_past_real_records_come_first_and_synthetic_ones_fill_up(tmp_path: Path):
    path = lines_in(tmp_path, 3)
    records = pasts.past(5, [path])

    assert [r.input for r in records[:3]] == ["in 0", "in 1", "in 2"]
    assert [r.time for r in records] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len({r.id for r in records}) == 5


def test_queries_of_real_records_are_no_texts_of_the_past(tmp_path: Path):
    path = lines_in(tmp_path, 3)

    assert pasts.queries(2, [path]) == ["in 1 q0", "in 2 q1"]
    texts = {text for r in pasts.past(5, [path]) for text in (r.input, r.output)}
    assert texts.isdisjoint(pasts.queries(3, [path]))


def test_queries_more_than_there_are_records_are_refused(tmp_path: Path):
    with pytest.raises(BenchError, match=r"some\.jsonl: got 3 records; expected 4, one for each"):
        pasts.queries(4, [lines_in(tmp_path, 3)])


def test_random_vectors_are_there_for_every_text(tmp_path: Path, bundle: Bundle):
    records = pasts.synthetic(40)
    with Store.open(tmp_path / "u.db") as store:
        store.add(records)
        pasts.put_random_vectors(store, bundle.base_id, records, seed=0)
        assert store.vector_count(bundle.base_id) == 80


def test_ranking_measures_each_size_against_both_rivals(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranking, "CANDIDATES", 3)
    found = ranking.measure([], quick=True, threads=1, sizes=(30, 60), scanned=40)

    assert set(found["p50_ms"]) == {"30", "60"}
    assert found["sizes"]["60"]["n"] == 40
    assert found["cross_encoder"]["pairs"] == found["rank_bm25_scan"]["pairs"] == 7
    assert found["cross_encoder_over_rank"] == found["cross_encoder"]["ratio"]
    # Ranking must have ranked: its query alone was encoded anew, each time.
    assert found["of_which_encoding"]["p50_ms"] > 0


def test_material_best_candidates_are_those_of_highest_utility(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fits, "QUERIES", 30)
    monkeypatch.setattr(fits, "HELD_OUT", 20)
    given = fits.material(bundle)

    assert (given.seen.n_groups, given.unseen.n_groups) == (30, 20)
    table = given.seen.utilities.reshape(30, -1)
    np.testing.assert_array_equal(given.best.reshape(30, -1).argmax(axis=1), table.argmax(axis=1))


def test_against_sklearn_both_rank_unseen_queries_better_than_the_shared_head(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(fits, "QUERIES", 200)
    found = fits.against_sklearn(fits.material(bundle), bundle, 1)
    ranked = found["sklearn"]["held_out_utility"]

    assert ranked["ours"] > ranked["shared"]
    assert ranked["sklearn"] > 0.5
    assert found["sklearn_over_fit"] == found["sklearn"]["same_job"]["ratio"]


def test_paper_head_that_was_not_fitted_is_no_number_and_has_its_key(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(fits, "material", lambda _bundle: None)
    for name in ("against_sklearn", "update", "cold"):
        monkeypatch.setattr(fits, name, lambda *_, **__: {})
    told: list[str] = []
    found = fits.measure([], quick=True, threads=1, torch=None, note=told.append)

    assert found == {"paper_head_over_fit": None}
    assert told == ["the paper's head was not fitted: it needs torch, see --torch"]


def test_paper_head_without_its_environment_is_an_error(tmp_path: Path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no torch >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BenchError, match="no torch"):
        fits.against_paper(broken, 1.0, threads=1, runs=1)


def test_cold_fit_spends_most_of_it_in_the_encoder_and_little_on_padding(bundle: Bundle):
    clock.use_clock("cpu")
    found = fits.cold(bundle, [], records=40, threads=1)

    assert 0.0 < found["cold_ort_share"] <= 1.0
    assert found["cold"]["real_token_share"] >= 0.85


def test_update_ends_in_a_stored_head(bundle: Bundle, monkeypatch: pytest.MonkeyPatch):
    saved: list[int] = []
    monkeypatch.setattr(Store, "save_head", lambda self, state: saved.append(state.n_queries))
    found = fits.update(bundle, 3)

    assert saved == [0, 0, 1, 2]
    assert found["update"]["n"] == 3


def test_process_that_fails_is_not_timed():
    with pytest.raises(BenchError, match="boom"):
        starts.run_python("raise SystemExit('boom')")


def test_installed_size_counts_the_base_and_the_runtime():
    assert starts.installed_mb() > 23 + 20


def test_scale_of_a_small_person_has_every_row():
    found = scale.life(12, [], threads=1, clock="cpu")

    assert set(scale.ROWS) <= found.keys()
    assert found["text_mb"] < found["db_mb"]


def run_scale(*options: object, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        scale, "life", lambda *_, **__: dict.fromkeys((*scale.ROWS, "text_mb"), 1.0)
    )
    return CliRunner().invoke(scale.app, [str(option) for option in options])


def test_scale_machine_tells_the_clock_that_was_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "scale.json"
    done = run_scale("--sizes", "20,10,", "--clock", "cpu", "--json", path, monkeypatch=monkeypatch)
    found = json.loads(path.read_text())

    assert done.exit_code == 0, done.output
    assert found["clock"] == found["machine"]["clock"] == "cpu"
    assert sorted(found["scale"]) == ["10", "20"]


def test_scale_data_too_short_is_told_before_anybody_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = run_scale("--data", lines_in(tmp_path, 120), monkeypatch=monkeypatch)

    assert isinstance(done.exception, BenchError)
    assert "expected 121" in str(done.exception)
    assert "records" not in done.output


@pytest.mark.parametrize("app", [scale.app, memory.app])
def test_sizes_that_are_none_are_refused(app: typer.Typer):
    done = CliRunner().invoke(app, ["--sizes", "1000,many"])

    assert isinstance(done.exception, BenchError)
    assert "--sizes is '1000,many'; expected whole numbers" in str(done.exception)


def test_memory_grows_from_stage_to_stage():
    found = memory.measure([20], [], threads=1)["20"]

    assert tuple(found["rss_mb"]) == memory.STAGES
    assert found["rss_mb"]["start"] < found["rss_mb"]["encoder"]
    assert found["peak_mb"] >= max(found["rss_mb"].values())


@pytest.mark.parametrize(("system", "peak"), [("linux", 100_000), ("darwin", 102_400_000)])
def test_peak_of_memory_is_in_millions_of_bytes_on_every_system(
    monkeypatch: pytest.MonkeyPatch, system: str, peak: int
):
    monkeypatch.setattr(clock.sys, "platform", system)
    monkeypatch.setattr(clock.resource, "getrusage", lambda _who: SimpleNamespace(ru_maxrss=peak))
    assert clock.peak_mb() == 102.4


def test_peers_rows_name_both_sides():
    pair = {"ratio": 2.0, "ours": {"p50_ms": 1.0}, "theirs": {"p50_ms": 2.0}}
    given = {
        "rank": {"cross_encoder": pair, "rank_bm25_scan": pair},
        "fit": {"same_job": pair, "one_fit_over_one_fit": pair},
    }

    assert {row[1:2] + row[3:] for row in peers.rows(given)} == {(1.0, 2.0, 2.0)}


def test_figures_keep_the_keys_others_read():
    """The names agreed for programs that read the result; see ``AT_MOST`` for their meaning."""
    names = {*latency.AT_MOST, *latency.AT_LEAST, *latency.DECODING}

    assert {
        "rank.p50_ms.1000", "rank.p50_ms.10000", "rank.p50_ms.100000",
        "rank.cross_encoder_over_rank", "rank.rank_bm25_scan_over_rank_44k",
        "fit.warm_ms", "fit.sklearn_over_fit", "fit.paper_head_over_fit", "fit.update_ms",
        "fit.cold_ort_share", "startup.help_over_typer", "startup.rank_cold_ms",
        "startup.rss_mb_10k", "import.records_per_s",
        "best8_over_greedy_16", "best8_over_greedy_64", "independent8_over_best8_16",
        "sequential8_over_best8_16", "sequential8_over_best8_64", "label_best8_over_greedy",
        "over_bare_loop",
    } <= names  # fmt: skip


def test_bench_command_measures_without_asking_or_logging(
    tmp_path: Path, bundle: Bundle, hash_encoder
):
    from hydra_edge.cli.bench import measure

    with Personalizer.from_records(pasts.synthetic(30), encoder=hash_encoder) as person:
        found = measure(person, None, 5)
        assert person.store.last_generation() is None

    assert (found["records"], found["rank_ms"]["n"], found["llm_calls"]) == (30, 5, 0)
    assert found["base_id"] == bundle.base_id
