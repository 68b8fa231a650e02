"""The server side that needs no torch: reading data, keeping answers, fitting priors."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

from export.cache import CachedLLM, answer_rows, answers_file, open_cached, pack_answers
from export.data import UserHistory, by_task, fingerprint, read_users, sample_users
from export.priors import (
    LEAST_NOISE,
    LEAST_SPREAD,
    STRENGTHS,
    Labelled,
    Scale,
    _cross_entropy,
    _folds,
    _moments,
    _out_of_fold,
    engine_for,
    fit_population,
    fit_scale,
    label_reranker,
    population_gains,
    priors_of_role,
    scaled,
)
from hydra_edge.bundle import Bundle
from hydra_edge.errors import BackendError, ConfigError, ContextLengthError, HydraError
from hydra_edge.evaluate import judge
from hydra_edge.features.scaling import LIMIT
from hydra_edge.heads import ConditionalLogit, Groups, Prior
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.reranker import proxy_data
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Record

PROMPT = build_prompt(BUILTIN["paper_title"], "a query", [])


def lines(user: str, n: int, task: str = "paper_title") -> list[dict[str, object]]:
    topics = ("parser", "speech", "vision")
    return [
        {
            "user": user, "id": f"{user}-{i}", "seq": i, "time": None, "task": task,
            "input": f"text on {topics[i % 3]} by {user} {i}",
            "output": f"{topics[i % 3]}: study {i}",
        }
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    text = "\n".join(json.dumps(row) for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def test_read_users_orders_by_seq_not_by_line(tmp_path: Path) -> None:
    rows = lines("u1", 4)
    (user,) = read_users([write(tmp_path / "a.jsonl.gz", rows[::-1])])
    assert [r.id for r in user.records] == [f"u1-{i}" for i in range(4)]
    assert [r.time for r in user.records] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("seqs", "times", "order"),
    [
        ([None] * 4, [40.0, 30.0, 20.0, 10.0], [3, 2, 1, 0]),  # the newest first, and no seq
        ([3, 2, 1, 0], [10.0, 20.0, 30.0, 40.0], [3, 2, 1, 0]),  # seq decides, whatever time says
        ([2.0, "1", 3.0, 0], [None] * 4, [3, 1, 0, 2]),
        ([None, 7, None, 8], [40.0, 30.0, 20.0, 10.0], [3, 2, 1, 0]),  # half of an order is none
        ([None] * 4, [None, 1.0, 2.0, 3.0], [0, 1, 2, 3]),
    ],
)
def test_read_users_orders_by_seq_else_by_time_else_by_line(
    tmp_path: Path, seqs: list[object], times: list[float | None], order: list[int]
) -> None:
    rows = [
        row | {"seq": seq, "time": time}
        for row, seq, time in zip(lines("u1", 4), seqs, times, strict=True)
    ]
    (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert [r.id for r in user.records] == [f"u1-{i}" for i in order]
    moments = [r.time or 0.0 for r in user.records]
    assert moments == sorted(moments)
    assert len(set(moments)) == 4


def test_read_users_without_ids_names_records_apart(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("id", "seq")} for row in lines("u1", 3)]
    (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert len({r.id for r in user.records}) == 3


def test_read_users_with_a_seq_that_is_no_number_is_refused(tmp_path: Path) -> None:
    rows = [row | {"seq": "first"} for row in lines("u1", 2)]
    with pytest.raises(HydraError, match="user 'u1' has seq 'first'; expected a number or null"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("name", ["seq", "time"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "-Infinity", "1e999"])
def test_read_users_with_a_moment_before_or_after_nothing_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    rows = [row | {"seq": None, "time": None} | {name: i} for i, row in enumerate(lines("u1", 4))]
    rows[2][name] = value
    with pytest.raises(HydraError, match=rf"user 'u1' has {name} .*; expected a number or null"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("name", ["user", "task"])
def test_read_users_without_a_name_says_which_line(tmp_path: Path, name: str) -> None:
    rows = [row | ({name: " "} if i == 1 else {}) for i, row in enumerate(lines("u1", 3))]
    with pytest.raises(HydraError, match=rf"^a\.jsonl, line 2: got a blank {name}; expected"):
        read_users([write(tmp_path / "a.jsonl", rows)])


@pytest.mark.parametrize("without", [(), ("id",), ("id", "time"), ("id", "seq", "time")])
def test_read_users_takes_a_line_of_two_files_once(
    tmp_path: Path, without: tuple[str, ...]
) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in without}
        for row in (*lines("u1", 4), *lines("u2", 3))
    ]
    other = [row | {"user": "u3"} for row in rows[:2]]
    once = read_users([write(tmp_path / "once.jsonl", [*rows, *other])])
    overlap = [
        write(tmp_path / "a.jsonl", rows),
        write(tmp_path / "b.jsonl.gz", [*rows[1:3], *other]),
    ]
    with pytest.warns(UserWarning, match=r"^2 lines that are there already.*b\.jsonl\.gz, line 1"):
        found = read_users(overlap)
    told = [[(u.user, r.input, r.output) for u in users for r in u.records]
            for users in (once, found)]  # fmt: skip
    assert told[0] == told[1]


def test_read_users_takes_what_one_wrote_twice_as_two_records(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("id", "seq")} for row in lines("u1", 3)]
    (user,) = read_users([write(tmp_path / "a.jsonl", [*rows, rows[0]])])
    assert len(user.records) == 4
    same = [lines("u1", 1)[0] | {"seq": seq} for seq in range(3)]
    (user,) = read_users([write(tmp_path / "b.jsonl", same)])
    assert len(user.records) == 3, "at other moments"


@pytest.mark.parametrize("name", ["user", "task", "input", "output"])
@pytest.mark.parametrize(("value", "got"), [(None, "null"), (["a"], "a list"), ({}, "an object")])
def test_read_users_with_no_text_where_it_must_be_names_the_line(
    tmp_path: Path, name: str, value: object, got: str
) -> None:
    rows = [row | ({name: value} if i == 2 else {}) for i, row in enumerate(lines("u1", 4))]
    with pytest.raises(HydraError, match=rf"^b\.jsonl, line 3: got {got} as {name}; expected text"):
        read_users([write(tmp_path / "a.jsonl", lines("u0", 3)), write(tmp_path / "b.jsonl", rows)])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_read_users_reads_past_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, lines("u1", 3))
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    content = b"\xef\xbb\xbf" + content
    path.write_bytes(gzip.compress(content) if packed else content)
    (user,) = read_users([path])
    assert (user.user, len(user.records)) == ("u1", 3)


def test_read_users_takes_two_spellings_of_a_task_for_one(tmp_path: Path) -> None:
    rows = [
        row | {"task": name}
        for row, name in zip(
            lines("u1", 3), ("Paper-Title", "paper_title", "paper title "), strict=True
        )
    ]
    (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert user.task == "paper_title"
    assert [record.task for record in user.records] == ["paper_title"] * 3


def test_sample_users_same_seed_same_users(tmp_path: Path) -> None:
    rows = [row for i in range(9) for row in lines(f"u{i}", 3 + i)]
    users = read_users([write(tmp_path / "a.jsonl", rows)])
    first = sample_users(users, 3, least=5, seed=1)
    assert first == sample_users(users, 3, least=5, seed=1)
    assert all(len(u.records) >= 5 for u in first)


def test_by_task_sorts_tasks_and_keeps_the_order_of_users(tmp_path: Path) -> None:
    rows = [row for task in ("b", "a") for u in ("u2", "u1") for row in lines(u, 1, task)]
    users = by_task(read_users([write(tmp_path / "a.jsonl", rows)]))
    assert list(users) == ["a", "b"]
    assert [u.user for u in users["b"]] == ["u1", "u2"]


def test_fingerprint_is_of_the_bytes_and_under_the_files_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", lines("u", 1))
    assert fingerprint([path]) == {"a.jsonl": hashlib.sha256(path.read_bytes()).hexdigest()[:16]}


def test_fingerprint_of_a_packed_file_tells_what_it_holds_too(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", lines("u", 1))
    path = write(tmp_path / "b.jsonl.gz", lines("u", 1))
    marks = fingerprint([path])
    assert list(marks) == ["b.jsonl.gz", "b.jsonl.gz unpacked"]
    assert marks["b.jsonl.gz"] == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert marks["b.jsonl.gz unpacked"] == fingerprint([plain])["a.jsonl"]


@pytest.mark.parametrize("content", [b"plain", gzip.compress(b"text" * 99)[:-9]])
def test_fingerprint_of_a_file_that_cannot_be_unpacked_is_refused(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(
        HydraError, match=r"a\.jsonl\.gz cannot be unpacked: .*Expected a whole gzip"
    ):
        fingerprint([path])


def test_fingerprint_of_files_of_one_name_names_both(tmp_path: Path) -> None:
    places = [tmp_path / site for site in "ab"]
    for place in places:
        place.mkdir()
    paths = [write(place / "x.jsonl", lines(place.name, 1)) for place in places]
    marks = fingerprint(paths)
    assert list(marks) == ["x.jsonl", "x.jsonl (2)"]
    assert set(marks.values()) == {mark for path in paths for mark in fingerprint([path]).values()}


def test_read_users_refuses_the_same_lines_twice(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, lines("u", 3)) for name in ("a.jsonl", "a.jsonl.gz")]
    with pytest.raises(HydraError, match=r"a\.jsonl\.gz holds the same as .*a\.jsonl;"):
        read_users(paths)


def test_read_users_leaves_out_blank_answers_and_says_so(tmp_path: Path) -> None:
    rows = lines("u", 5)
    rows[1] |= {"output": " "}
    rows[3] |= {"input": ""}
    with pytest.warns(UserWarning, match=r"2 lines with a blank .* first is a\.jsonl, line 2"):
        (user,) = read_users([write(tmp_path / "a.jsonl", rows)])
    assert len(user.records) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{half", r"a\.jsonl, line 2: .*expected one JSON object"),
        ("[1]", r"a\.jsonl, line 2: got \[1\]; expected one JSON object"),
        ('{"user": "u", "task": "t", "input": "i"}', "line 2: found no output"),
    ],
)
def test_read_users_damaged_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = write(tmp_path / "a.jsonl", lines("u", 1))
    path.write_text(path.read_text() + "\n" + line)
    with pytest.raises(HydraError, match=told):
        read_users([path])


def test_read_users_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", [row for i in range(50) for row in lines(f"u{i}", 9)])
    whole = path.read_bytes()
    for damaged in (whole[:-200], whole[:200] + bytes(20) + whole[220:]):
        path.write_bytes(damaged)
        with pytest.raises(HydraError, match=r"a\.jsonl\.gz cannot be (read|unpacked)"):
            read_users([path])


def test_cache_of_another_model_is_left_alone(
    tmp_path: Path, scripted: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cache.jsonl"
    path.with_suffix(".name").write_text("other\n")
    inner = scripted(lambda _p, n: ["answer"] * n)
    monkeypatch.setattr("export.cache.open_llm", lambda *_: inner)
    with pytest.raises(ConfigError, match="keeps the answers of other; got scripted"):
        open_cached("scripted", path, replay=False)
    assert path.with_suffix(".name").read_text() == "other\n"


def test_cached_llm_asks_once_and_replays_without_a_model(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    inner = scripted(lambda _p, n: [f"answer {i}" for i in range(n)])
    path = tmp_path / "cache.jsonl"
    llm = CachedLLM(inner, path)
    first = llm.complete(PROMPT, n=3)
    assert llm.complete(PROMPT, n=3) == first
    assert llm.asked == 1
    replay = CachedLLM(None, path, name="scripted")
    again = replay.complete(PROMPT, n=3)
    assert [(c.text, c.greedy, c.tokens) for c in again] == [
        (c.text, c.greedy, c.tokens) for c in first
    ]
    with pytest.raises(BackendError, match="run once with the model itself"):
        replay.complete(PROMPT, n=4)
    assert again == first, "the first run sees exactly what a replay sees"
    assert "a query" not in path.read_text(), "no source text is stored"


def test_cached_llm_survives_a_line_cut_off_by_a_crash(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    path = tmp_path / "cache.jsonl"
    inner = scripted(lambda _p, n: ["answer"] * n)
    CachedLLM(inner, path).complete(PROMPT)
    with path.open("a") as stream:
        stream.write('{"k":"half')
    again = CachedLLM(inner, path)
    assert again.complete(PROMPT)[0].text == "answer"
    assert again.asked == 0
    # The next line must not be glued to the broken one.
    again.complete(PROMPT, n=2)
    assert len(CachedLLM(None, path, name="scripted").answers) == 2


def test_cached_llm_replays_what_the_first_run_saw_long_prompts_included(
    tmp_path: Path,
) -> None:
    class Exact:
        name, is_remote = "exact", False

        def complete(self, prompt: Prompt, **_options: object) -> list[Completion]:
            if prompt.query == "too long":
                raise ContextLengthError("no room")
            return [Completion("yes", greedy=True, tokens=1, logprob=-0.123456789)]

    path = tmp_path / "cache.jsonl"
    llm = CachedLLM(Exact(), path)
    first = llm.complete(PROMPT)
    assert CachedLLM(None, path, name="exact").complete(PROMPT) == first
    long = build_prompt(BUILTIN["paper_title"], "too long", [])
    for _ in range(2):  # refused by the model, then by what is known of it
        with pytest.raises(ContextLengthError, match="room"):
            llm.complete(long)
    with pytest.raises(ContextLengthError, match="was found not to have room"):
        CachedLLM(None, path, name="exact").complete(long)
    assert len(path.read_text().splitlines()) == 2


def test_cached_llm_reads_a_packed_cache_too(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    path = tmp_path / "cache.jsonl"
    CachedLLM(scripted(lambda _p, n: ["answer"] * n), path).complete(PROMPT)
    (tmp_path / "cache.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert CachedLLM(None, path, name="scripted").complete(PROMPT)[0].text == "answer"


def test_answers_with_odd_line_ends_survive_a_replay(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    odd = "one\u2028two\x85three\x1cfour\rfive"
    path = tmp_path / "cache.jsonl"
    CachedLLM(scripted(lambda _p, n: [odd] * n), path).complete(PROMPT)
    assert CachedLLM(None, path, name="scripted").complete(PROMPT)[0].text == odd
    pack_answers(path)
    assert CachedLLM(None, path, name="scripted").complete(PROMPT)[0].text == odd


def test_replay_of_a_cache_never_asks_the_model(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    inner = scripted(lambda _p, n: ["answer"] * n)
    llm = CachedLLM(inner, tmp_path / "cache.jsonl")
    with pytest.raises(BackendError, match="run once"):
        llm.replay().complete(PROMPT)
    llm.complete(PROMPT)
    assert llm.replay().complete(PROMPT)[0].text == "answer"


def test_pack_answers_gives_equal_bytes_whatever_the_order(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    prompts = [build_prompt(BUILTIN["paper_title"], f"query {i}", []) for i in range(4)]
    packed = []
    for name, order in (("one", prompts), ("two", prompts[::-1])):
        path = tmp_path / f"{name}.jsonl"
        inner = scripted(lambda p, n: [f"to {p.query}"] * n)
        llm = CachedLLM(inner, path)
        for prompt in order:
            llm.complete(prompt)
        assert pack_answers(path) == 4
        assert not path.exists()
        packed.append((tmp_path / f"{name}.jsonl.gz").read_bytes())
    assert packed[0] == packed[1]


def test_pack_answers_adds_to_what_is_packed_and_drops_a_broken_line(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    path = tmp_path / "cache.jsonl"
    inner = scripted(lambda _p, n: ["answer"] * n)
    CachedLLM(inner, path).complete(PROMPT)
    pack_answers(path)
    CachedLLM(inner, path).complete(PROMPT, n=2)
    with path.open("a") as stream:
        stream.write('{"k":"half')
    before = answer_rows(path)
    assert pack_answers(path) == 2
    assert answer_rows(path) == before
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["cache.jsonl.gz"]


def test_open_cached_replays_under_the_models_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scripted: Callable[..., object]
) -> None:
    inner = scripted(lambda _p, n: ["answer"] * n)
    monkeypatch.setattr("export.cache.open_llm", lambda *_: inner)
    path = answers_file(tmp_path / "answers", "/models/my.gguf")
    open_cached("/models/my.gguf", path, replay=False).complete(PROMPT)
    assert path.parent == tmp_path / "answers"
    again = open_cached("/models/my.gguf", path, replay=True)
    assert (again.name, again.complete(PROMPT)[0].text) == ("scripted", "answer")


@pytest.mark.parametrize(("spec", "name"), [("smollm2", "smollm2-q8"), ("gemma3", "gemma3")])
def test_open_cached_knows_the_bundled_models_names(tmp_path: Path, spec: str, name: str) -> None:
    assert open_cached(spec, answers_file(tmp_path, spec), replay=True).name == name


def people(
    truth: np.ndarray, n_users: int, spread: float, *, noise: float = 0.0, seed: int = 0
) -> list[Labelled]:
    """Make users whose own weights scatter around the population's."""
    rng = np.random.default_rng(seed)
    users = []
    for u in range(n_users):
        own = truth + spread * rng.standard_normal(len(truth))
        items = []
        for _ in range(12):
            phi = rng.standard_normal((6, len(truth))).astype(np.float32)
            score = phi @ own + noise * rng.standard_normal(6)
            items.append((phi, ((score - score.min()) / np.ptp(score)).astype(np.float32)))
        users.append(Labelled(f"u{u}", "paper_title", "text", tuple(items)))
    return users


def test_label_reranker_labels_the_latest_records_as_the_device_does(
    bundle: Bundle, hash_encoder
) -> None:
    records = tuple(
        Record(
            f"a text about topic {i % 3}", f"topic {i % 3}: title {i}", "paper_title", f"r{i}", i
        )
        for i in range(9)
    )
    told: list[tuple[str, int, int]] = []
    users = [UserHistory(name, "paper_title", records) for name in ("a", "b")]
    found = label_reranker(users, bundle, hash_encoder, 4, lambda *at: told.append(at))
    engine = engine_for(users[0], bundle, hash_encoder)
    history = engine.history(engine.task("paper_title"))
    data = proxy_data(engine.features["reranker"], history, engine.lexical(history), limit=4)
    assert data.position.tolist() == [5, 6, 7, 8]
    for user in found:
        again = Groups.stack(user.items, data.groups.dim)
        np.testing.assert_array_equal(again.offsets, data.groups.offsets)
        np.testing.assert_array_equal(again.utilities, data.groups.utilities)
        np.testing.assert_allclose(again.features, data.groups.features, atol=1e-6)
    assert [(user.user, user.kind) for user in found] == [("a", "text"), ("b", "text")]
    assert told == [("reranker labels", 1, 2), ("reranker labels", 2, 2)]


def test_fit_population_finds_the_shared_direction() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    found = fit_population(people(truth, 20, 0.1), 3, "adapter", 2)
    cosine = found.mean @ truth / np.linalg.norm(found.mean) / np.linalg.norm(truth)
    assert cosine > 0.98
    utility = found.report["utility"]
    assert utility["any"] < utility["shared"] <= utility["best_single"]
    assert utility["baseline"] < utility["shared"]
    assert (found.report["users"], found.report["queries"]) == (20, 20 * 12)


@pytest.mark.parametrize(("n_users", "known"), [(1, False), (2, True)])
def test_priors_of_a_task_need_somebody_to_be_judged_on(n_users: int, known: bool) -> None:
    names = ("a", "b", "greedy")
    users = people(np.array([2.0, -1.0, 0.0]), n_users, 0.1)
    nobody = Labelled("nobody", "paper_title", "text", ())
    arrays, report = priors_of_role([*users, nobody], "adapter", names, "greedy")
    assert ("adapter.prior.paper_title.mean" in arrays) is known
    assert sorted(report) == (["paper_title", "text"] if known else [])


def test_prior_of_a_task_is_of_that_task_and_a_kinds_of_all_of_its_tasks() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    turned = [replace(user, task="note_title") for user in people(-truth, 6, 0.1)]
    users = [*people(truth, 6, 0.1), *turned]
    arrays, _ = priors_of_role(users, "adapter", ("a", "b", "greedy"), "greedy")
    along = {
        group: float(arrays[f"adapter.prior.{group}.mean"] @ truth)
        for group in ("paper_title", "note_title", "text")
    }
    assert along["paper_title"] > 1.0
    assert along["note_title"] < -1.0
    assert abs(along["text"]) < 0.2


def test_fit_population_of_users_with_few_queries_holds_heads_to_the_mean() -> None:
    users = [replace(u, items=u.items[:3]) for u in people(np.array([2.0, -1.0, 0.0]), 8, 6.0)]
    assert fit_population(users, 3, "adapter", 2).precision[0, 0] == STRENGTHS[-1]


def test_weights_of_a_fold_do_not_know_who_is_left_out() -> None:
    users = people(np.array([2.0, -1.0, 0.0]), 10, 0.5)
    turned = tuple((phi, 1.0 - utilities) for phi, utilities in users[0].items)
    folds = [
        _out_of_fold([replace(users[0], items=items), *users[1:]], 3, 0.1, 1.0)
        for items in (users[0].items, turned)
    ]
    assert sorted(i for part, _ in folds[0] for i in part) == list(range(10))
    for (part, weight), (_, other) in zip(*folds, strict=True):
        assert np.allclose(weight, other) == (0 in part)


def test_fit_population_holds_heads_looser_where_users_differ_more() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    alike = fit_population(people(truth, 20, 0.0, noise=3.0), 3, "adapter", 2)
    varied = fit_population(people(truth, 20, 6.0, noise=3.0), 3, "adapter", 2)
    assert varied.precision[0, 0] < alike.precision[0, 0]


def test_gains_are_of_all_queries_for_the_shared_head_and_of_held_out_ones_for_the_own() -> None:
    truth = np.array([2.0, -1.0, 0.5])
    judged = [
        (Groups.stack(user.items, 3), Prior(truth, np.eye(3), 0.1))
        for user in people(truth, 5, 2.0, noise=1.0)
    ]
    gains = population_gains(judged, 2, 1)
    assert gains.shape == (2, 3)
    baseline = np.eye(3, dtype=np.float32)[2]
    verdicts = [judge(groups, prior, baseline, top=1) for groups, prior in judged]
    shared = [(v.shared - v.baseline).mean() for v in verdicts]
    own = [(v.personal - v.shared)[6:].mean() for v in verdicts]
    np.testing.assert_allclose(gains[:, 0], [np.mean(shared), np.mean(own)])
    assert abs(gains[1, 0]) > 1e-3


def test_moments_split_what_users_differ_by_from_what_their_queries_do() -> None:
    differences = [np.array([0.1, 0.3]), np.array([0.0, 0.8, 0.4]), np.array([])]
    noise = np.sqrt((0.02 + 0.32) / (1 + 2))
    by_chance = noise**2 * (1 / 2 + 1 / 3) / 2
    within = max(0.02 - by_chance, LEAST_SPREAD**2)  # means of .2 and .4 have a variance of .02
    spread = np.sqrt(within + by_chance / 2)
    assert _moments(differences) == pytest.approx((0.3, spread, noise))
    far = [d + shift for d, shift in zip(differences, (-1.0, 1.0, 0.0), strict=True)]
    apart = np.sqrt(2.2**2 / 2 - by_chance + by_chance / 2)
    assert _moments(far) == pytest.approx((0.3, apart, noise))


def test_moments_of_few_users_claim_no_certainty() -> None:
    assert _moments([]) == _moments([np.array([])]) == (0.0, 1.0, 1.0)
    mean, spread, noise = _moments([np.array([0.1])])
    assert (mean, noise) == (0.1, 1.0)
    assert spread == pytest.approx(np.sqrt(2.0))
    _, spread, noise = _moments([np.full(4, 0.1)] * 3)
    assert noise == LEAST_NOISE
    assert spread == pytest.approx(np.sqrt(LEAST_SPREAD**2 + LEAST_NOISE**2 / 4 / 3))


def test_loss_of_a_head_is_the_cross_entropy_of_what_it_was_to_be_fitted_to() -> None:
    groups = Groups.stack(people(np.array([2.0, -1.0]), 1, 0.0)[0].items, 2)
    head = ConditionalLogit(Prior(np.array([1.0, 1.0]), np.eye(2), 0.3))
    target = groups.target(0.3).reshape(-1, 6)
    log_p = log_softmax((groups.features @ head.weight_).reshape(-1, 6), axis=1)
    expected = -(target * log_p).sum(axis=1).mean()
    assert _cross_entropy(head, groups, 0.3) == pytest.approx(expected)


def test_folds_keep_each_user_whole() -> None:
    users = [Labelled(f"u{i % 7}", task, "text", ()) for i in range(7) for task in ("a", "b")]
    seen: dict[str, int] = {}
    for f, part in enumerate(_folds(users)):
        for i in part:
            assert seen.setdefault(users[i].user, f) == f
    assert len(seen) == 7


def test_fit_scale_is_the_mean_over_tasks_in_which_a_feature_varies() -> None:
    rows = {"a": [[0, 5, 7], [2, 5, 7]], "b": [[10, 1, 7], [14, 3, 7], [10, 1, 7], [14, 3, 7]]}
    users = [
        Labelled("u", task, "text", ((np.array(x, dtype=np.float32), np.ones(len(x))),))
        for task, x in rows.items()
    ]
    mean, std = fit_scale(users, 3)
    np.testing.assert_allclose(mean, [(1 + 12) / 2, 2, 0])
    np.testing.assert_allclose(std, [(1 + 2) / 2, 1, 1])
    raw = np.array([[8.0, 1.0, 2.0], [99.0, -99.0, 0.0]], dtype=np.float32)
    for ready in (
        Scale(mean, std).apply(raw),
        scaled([Labelled("u", "a", "text", ((raw, np.ones(2)),))], mean, std, LIMIT)[0].items[0][0],
    ):
        np.testing.assert_allclose(ready, [[1.0, -1.0, 2.0], [LIMIT, -LIMIT, 0.0]])


def test_fit_scale_brings_every_feature_to_unit_deviation() -> None:
    rng = np.random.default_rng(0)
    raw = [
        Labelled("u", "a", "text", ((rng.normal(5, 3, (400, 2)).astype(np.float32), np.ones(400)),))
    ]
    constant = [
        Labelled(
            "u", "b", "label", ((np.tile([5.0, 0.0], (40, 1)).astype(np.float32), np.ones(40)),)
        )
    ]
    mean, std = fit_scale([*raw, *constant], 2)
    np.testing.assert_allclose(mean, [5, 5], atol=0.5)
    np.testing.assert_allclose(std, [3, 3], atol=0.5)
    ready = scaled(raw, mean, std, 5.0)[0].items[0][0]
    assert abs(float(ready.mean())) < 0.2
