"""Asking an LLM about users' own past: what it is shown, and that it is asked once."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from progress import quiet

from export.cache import CachedLLM
from export.data import LeakError, UserHistory
from export.label import (
    SAMPLING,
    ZERO_SHOT,
    Job,
    ask_all,
    check_shown,
    jobs_of,
    pools_kept,
    prepare_pools,
    prepare_records,
    records_kept,
    shown_by,
    spread,
    unanswered,
)
from export.labels import PoolLabel, RecordLabel, read_pools, read_records, write_labels
from export.mine import LlmPlan, Plan, Question, Questions, questions_for
from export.shown import SHOWN_FILE, add_shown, read_shown
from export.vectors import RememberingEncoder, encoder_key
from hydra_edge.bundle import Bundle
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, BundleError, ContextLengthError, HydraError
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, RankedRecord, Record

TOPICS = ("parser", "speech", "vision")


def history(user: str, n: int, task: str = "paper_title") -> UserHistory:
    outputs = ("sci-fi", "comedy", "action") if task == "movie_tag" else TOPICS
    records = tuple(
        Record(
            f"text on {TOPICS[i % 3]} by {user} {i}", outputs[i % 3], task,
            id=f"{user}-{i}", time=float(i),
        )
        for i in range(n)
    )  # fmt: skip
    return UserHistory(user, task, records)


def jobs(*users: UserHistory, back: int = 2, llm: str = "m") -> list[Job]:
    return [
        Job(llm, user, user.records[len(user.records) - 1 - b].id)
        for b in range(back) for user in users
    ]  # fmt: skip


def echo(prompt: Prompt, n: int) -> list[str]:
    shown = [shot.output for shot in reversed(prompt.shots)] or ["none"]
    return [shown[i % len(shown)] for i in range(n)]


@pytest.fixture
def asked(tmp_path: Path, scripted: Callable[..., object]) -> CachedLLM:
    return CachedLLM(scripted(echo), tmp_path / "m.jsonl")


def test_pools_are_asked_once_and_replayed_from_the_cache_alone(
    bundle: Bundle, hash_encoder, asked: CachedLLM
) -> None:
    todo = jobs(history("a", 9), history("b", 9))
    assert (
        ask_all(asked, prepare_pools(bundle, hash_encoder, todo), quiet, "pools") == 8
    )  # with records, and without
    assert ask_all(asked, prepare_pools(bundle, hash_encoder, todo), quiet, "pools") == 0
    replay = CachedLLM(None, asked.path, name="scripted")
    pools = list(pools_kept({"m": replay}, prepare_pools(bundle, hash_encoder, todo)))
    assert [(p.user, p.record_id, p.position) for p in pools] == [
        ("a", "a-8", 8), ("b", "b-8", 8), ("a", "a-7", 7), ("b", "b-7", 7),
    ]  # fmt: skip
    for pool in pools:
        assert (pool.llm, pool.task) == ("m", "paper_title")
        assert len(pool.completions) == SAMPLING.n
        assert pool.completions[0].greedy
        assert [c.text for c in pool.plain] == ["none"] * ZERO_SHOT
        mixed = pool.mixed(0.25)
        assert [c.zero_shot for c in mixed] == [False] * 6 + [True] * 2
        assert mixed[:6] == pool.completions[:6]
        assert not any(c.greedy for c in mixed[1:])


def test_prompt_is_that_of_the_device_with_the_past_alone(bundle: Bundle, hash_encoder) -> None:
    user = history("a", 9)
    (ask,) = prepare_pools(bundle, hash_encoder, jobs(user, back=1))
    # The same by hand, on a history that holds nothing of the query or after it.
    from export.priors import engine_for

    past = replace(user, records=user.records[:8])
    engine = engine_for(past, bundle, hash_encoder)
    task = engine.task(user.task)
    query = user.records[8].input
    ranked = engine.rank(
        engine.active(task, "reranker"), query, engine.encode_query(query), engine.history(task),
        k=4,
    )  # fmt: skip
    assert ask.prompt == engine.prompt(task, query, [r.record for r in ranked])
    assert len(ask.prompt.shots) == 4
    engine.store.close()


def test_shown_ids_are_earlier_records_in_the_order_of_the_prompt(
    bundle: Bundle, hash_encoder, asked: CachedLLM
) -> None:
    user = history("a", 30)
    todo = jobs(user, back=20)
    ask_all(asked, prepare_pools(bundle, hash_encoder, todo), quiet, "pools")
    for pool in pools_kept({"m": asked}, prepare_pools(bundle, hash_encoder, todo)):
        assert len(pool.shown_ids) == 4
        places = [int(name.removeprefix("a-")) for name in pool.shown_ids]
        assert max(places) < pool.position
        # The scripted LLM's greedy answer is the output of the best record, shown last.
        assert pool.completions[0].text == user.records[places[-1]].output


@pytest.mark.parametrize(
    ("planted", "told"), [(8, "itself"), (9, "a-9, no earlier"), (29, "a-29, no earlier")]
)
def test_leak_planted_in_the_ranking_stops_before_anything_is_asked(
    bundle: Bundle, hash_encoder, asked: CachedLLM, monkeypatch: pytest.MonkeyPatch,
    planted: int, told: str,
) -> None:  # fmt: skip
    user = history("a", 30)
    real = Engine.rank

    def leaky(self: Engine, *arguments: object, **options: object) -> tuple[RankedRecord, ...]:
        ranked = real(self, *arguments, **options)
        return (*ranked[:3], RankedRecord(user.records[planted], 9.0, {}))

    monkeypatch.setattr(Engine, "rank", leaky)
    todo = [Job("m", user, "a-20"), Job("m", user, "a-8")]
    with pytest.raises(LeakError, match=f"a-8 shows {told}.*expected records before position 8"):
        ask_all(asked, prepare_pools(bundle, hash_encoder, todo[1:]), quiet, "pools")
    assert asked.inner.prompts == []
    if planted < 20:  # the same records are the past of a later query
        assert ask_all(asked, prepare_pools(bundle, hash_encoder, todo[:1]), quiet, "pools") == 2


def test_record_of_another_user_in_a_prompt_is_a_leak(bundle: Bundle, hash_encoder) -> None:
    from export.priors import engine_for

    engine = engine_for(history("a", 9), bundle, hash_encoder)
    task = engine.task("paper_title")
    prompt = engine.prompt(task, "query", history("b", 3).records)
    with pytest.raises(LeakError, match="shows b-"):
        check_shown(prompt, engine.history(task), 8, task)
    engine.store.close()


def test_closed_set_holds_no_answer_that_is_first_given_later(bundle: Bundle, hash_encoder) -> None:
    user = history("a", 9, "movie_tag")
    own = replace(user.records[8], output="my own tag")
    user = replace(user, records=(*user.records[:8], own))
    (ask,) = prepare_pools(bundle, hash_encoder, jobs(user, back=1))
    assert "comedy" in ask.prompt.task.labels
    assert "my own tag" not in ask.prompt.completion_text()
    from export.priors import engine_for

    engine = engine_for(user, bundle, hash_encoder)
    task = engine.task("movie_tag")
    assert "my own tag" in task.labels, "the user's whole history would tell it"
    with pytest.raises(LeakError, match="offers 'my own tag'"):
        check_shown(
            engine.prompt(task, "query", []), engine.history(task), 8, engine.declared("movie_tag")
        )
    engine.store.close()


def test_what_was_never_answered_is_left_out_and_counted(
    bundle: Bundle, hash_encoder, asked: CachedLLM
) -> None:
    todo = jobs(history("a", 9), history("b", 9))
    ask_all(asked, prepare_pools(bundle, hash_encoder, todo[:3]), quiet, "pools")
    replay = CachedLLM(None, asked.path, name="scripted")
    pools = list(pools_kept({"m": replay}, prepare_pools(bundle, hash_encoder, todo)))
    assert [p.record_id for p in pools] == ["a-8", "b-8", "a-7"]
    assert unanswered(replay, prepare_pools(bundle, hash_encoder, todo)) == [3]
    live = list(pools_kept({"m": asked}, prepare_pools(bundle, hash_encoder, todo)))
    assert live == pools, "a replay never asks, not even where the model is at hand"


def test_labelling_stopped_half_way_goes_on_where_it_was(
    bundle: Bundle, hash_encoder, asked: CachedLLM
) -> None:
    todo = jobs(history("a", 9), history("b", 9))

    def stop(stage: str, done: int, _total: int) -> None:
        if stage.endswith("pools") and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_all(asked, prepare_pools(bundle, hash_encoder, todo), stop, "pools")
    again = CachedLLM(asked.inner, asked.path)
    assert ask_all(again, prepare_pools(bundle, hash_encoder, todo), quiet, "pools") == 2


def test_pool_of_a_cut_prompt_names_the_records_that_had_room(
    bundle: Bundle, hash_encoder, tmp_path: Path
) -> None:
    class Narrow:
        name, is_remote = "narrow", False

        def complete(self, prompt: Prompt, *, n: int = 1, **_options: object) -> list[Completion]:
            if len(prompt.shots) > (1 if prompt.query.endswith("8") else -1):
                raise ContextLengthError("no room")
            return [Completion("yes", greedy=i == 0) for i in range(n)]

    cache = CachedLLM(Narrow(), tmp_path / "n.jsonl")
    todo = jobs(history("a", 9))
    (whole, *_) = prepare_pools(bundle, hash_encoder, todo)
    ask_all(cache, prepare_pools(bundle, hash_encoder, todo), quiet, "pools")
    (pool,) = pools_kept({"m": cache}, prepare_pools(bundle, hash_encoder, todo))
    assert pool.record_id == "a-8", "the other query has no room at all"
    assert pool.shown_ids == whole.prompt.record_ids[-1:]
    assert unanswered(cache, prepare_pools(bundle, hash_encoder, todo)) == []


def test_prompts_show_what_was_shown_elsewhere(
    bundle: Bundle, hash_encoder, asked: CachedLLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    todo = jobs(history("a", 9), history("b", 9))
    asks = prepare_pools(bundle, hash_encoder, todo)
    ask_all(asked, asks, quiet, "pools")
    add_shown(tmp_path, shown_by(asks))
    real = Engine.rank
    monkeypatch.setattr(Engine, "rank", lambda *a, **k: real(*a, **k)[::-1])  # rounded otherwise
    replay = CachedLLM(None, asked.path, name="scripted")
    assert unanswered(replay, prepare_pools(bundle, hash_encoder, todo)) == [0, 1, 2, 3]
    again = prepare_pools(bundle, hash_encoder, todo, shown=read_shown(tmp_path))
    assert [ask.prompt for ask in again] == [ask.prompt for ask in asks]
    assert unanswered(replay, again) == []


@pytest.mark.parametrize("planted", ["a-8", "a-7"])
def test_prompt_that_is_noted_to_have_shown_a_later_record_is_a_leak(
    bundle: Bundle, hash_encoder, planted: str
) -> None:
    todo = [Job("m", history("a", 9), "a-7")]
    with pytest.raises(LeakError, match="expected records before position 7"):
        prepare_pools(bundle, hash_encoder, todo, shown={("paper_title", "a", "a-7"): (planted,)})


def test_note_of_records_that_are_gone_is_passed_over(bundle: Bundle, hash_encoder) -> None:
    todo = jobs(history("a", 9), back=1)
    asks = prepare_pools(bundle, hash_encoder, todo)
    gone = {("paper_title", "a", "a-8"): ("a-1", "gone")}
    assert prepare_pools(bundle, hash_encoder, todo, shown=gone) == asks


def test_notes_of_what_was_shown_add_up_and_give_equal_bytes(tmp_path: Path) -> None:
    # An id may be any text, half of an emoji, too.
    one, two = {("t", "u", "q1"): ("b", "a")}, {("t", "u\ud83d", "q2"): ("ä\ud83d",)}
    for folder, order in (("x", (one, two)), ("y", (two, one, one))):
        for shown in order:
            add_shown(tmp_path / folder, shown)
        assert read_shown(tmp_path / folder) == {**one, **two}
    contents = {(tmp_path / folder / SHOWN_FILE).read_bytes() for folder in "xy"}
    assert len(contents) == 1
    assert read_shown(tmp_path / "nowhere") == {}
    (tmp_path / "x" / SHOWN_FILE).write_bytes(contents.pop()[:-9])
    with pytest.raises(HydraError, match=r"shown\.jsonl\.gz cannot be read.*Remove it"):
        read_shown(tmp_path / "x")


class Prim:
    """Refuses what names a topic, as a filter of a remote LLM may."""

    name, is_remote = "prim", True

    def __init__(self, *topics: str) -> None:
        self.topics = topics

    def complete(self, prompt: Prompt, *, n: int = 1, **_options: object) -> list[Completion]:
        if any(f"text on {topic} " in prompt.query for topic in self.topics):
            raise BackendError("refused by a filter")
        return [Completion("yes", greedy=i == 0) for i in range(n)]


def test_prompt_an_llm_refuses_is_passed_over_and_counted(
    bundle: Bundle, hash_encoder, tmp_path: Path
) -> None:
    cache = CachedLLM(Prim("vision"), tmp_path / "p.jsonl")
    asks = prepare_pools(bundle, hash_encoder, jobs(history("a", 9), history("b", 9)))
    ask_all(cache, asks, quiet, "pools")
    assert [p.record_id for p in pools_kept({"m": cache}, asks)] == ["a-7", "b-7"]
    assert unanswered(cache, asks) == [0, 1]


def test_llm_that_answers_nothing_ends_the_labelling(
    bundle: Bundle, hash_encoder, tmp_path: Path
) -> None:
    cache = CachedLLM(Prim(*TOPICS), tmp_path / "p.jsonl")
    asks = prepare_pools(bundle, hash_encoder, jobs(history("a", 9), history("b", 9)))
    done: list[int] = []
    with pytest.raises(BackendError, match="refused by a filter"):
        ask_all(cache, asks, lambda _stage, n, _total: done.append(n), "pools")
    assert done == [1, 2]


def test_single_records_are_spread_and_earlier(
    bundle: Bundle, hash_encoder, asked: CachedLLM
) -> None:
    todo = jobs(history("a", 30), back=3)
    asks = prepare_records(bundle, hash_encoder, todo, 5)
    assert ask_all(asked, asks, quiet, "records") == 15
    labels = list(records_kept({"m": asked}, asks))
    assert len(labels) == 15
    assert len({(label.record_id, label.shown_id) for label in labels}) == 15
    for label in labels:
        place = int(label.shown_id.removeprefix("a-"))
        assert place < label.position
        assert label.completion.text == TOPICS[place % 3], "the LLM was shown that record"
        assert label.completion.greedy


def test_spread_keeps_the_best_half_and_reaches_the_last() -> None:
    assert spread(3, 5).tolist() == [0, 1, 2]
    assert spread(21, 4).tolist() == [0, 1, 2, 20]
    assert spread(50, 1).tolist() == [0]
    for m in range(1, 60):
        for n in range(1, 20):
            rows = spread(m, n).tolist()
            assert rows == sorted(set(rows))
            assert len(rows) == min(m, n)


def test_jobs_of_a_plan_are_in_its_order_and_of_these_users() -> None:
    users = {"paper_title": [history(f"u{i}", 14) for i in range(4)]}
    plan = LlmPlan("m", 4, 4, 2, record_queries=3, records=2)
    questions = questions_for(users, plan, Plan())
    assert [(j.user.user, j.record_id) for j in jobs_of(questions, users)] == [
        (q.user, q.record_id) for q in questions.pools
    ]
    assert len(jobs_of(questions, users, by_record=True)) == 3
    other = Questions("m", (Question("paper_title", "stranger", "r"),))
    with pytest.raises(BundleError, match="names user stranger"):
        jobs_of(other, users)


def test_labels_survive_the_way_to_disk_and_back_in_equal_bytes(tmp_path: Path) -> None:
    odd = Completion("a\u2028b\x85c\ud800", greedy=True, tokens=2, logprob=-0.5)
    paid = replace(odd, prompt_tokens=90)
    pools = [PoolLabel("m", "u", "r", 3, ("x", "y"), (odd, Completion("b")), "paper_title")]
    single = [RecordLabel("m", "u", "r", 3, "x", odd, "paper_title")]
    write_labels(tmp_path / "one", pools)
    # Asked of the LLM or replayed from its kept answers, which nobody bills: the same labels.
    write_labels(tmp_path / "two", [replace(pools[0], completions=(paid, Completion("b")))])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_pools(tmp_path / "one") == pools
    write_labels(tmp_path / "single", single)
    assert read_records(tmp_path / "single") == single
    write_labels(tmp_path / "none", [])
    assert read_pools(tmp_path / "none") == []


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"{}\n"), gzip.compress(b"x\n")],
    ids=["nothing", "text", "packed JSON", "packed text"],
)
def test_file_without_labels_says_how_to_make_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pools").write_bytes(content)
    with pytest.raises(BundleError, match="--only label"):
        read_pools(tmp_path / "pools")


# The encoder with a memory ----------------------------------------------------------------------


def test_remembering_encoder_embeds_a_text_once_over_runs(tmp_path: Path, hash_encoder) -> None:
    path = tmp_path / "vectors.npz"
    first = RememberingEncoder(hash_encoder, path, key="k")
    made = first.encode(["one", "two", "one"])
    assert sorted(hash_encoder.encoded) == ["one", "two"]
    first.save()
    again = RememberingEncoder(hash_encoder, path, key="k")
    np.testing.assert_array_equal(again.encode(["two", "one", "three"])[:2], made[[1, 0]])
    assert hash_encoder.encoded[2:] == ["three"]
    assert made.dtype == np.float32
    assert (again.dim, again.base_id) == (hash_encoder.dim, hash_encoder.base_id)
    assert again.encode([]).shape == (0, hash_encoder.dim)


def test_remembering_encoder_gives_the_same_before_and_after_it_remembers(
    tmp_path: Path, hash_encoder
) -> None:
    encoder = RememberingEncoder(hash_encoder, tmp_path / "vectors.npz", key="k")
    np.testing.assert_array_equal(encoder.encode(["a text"]), encoder.encode(["a text"]))


@pytest.mark.parametrize("damage", ["other key", "cut", "text", "pickle"])
def test_remembering_encoder_drops_a_memory_it_cannot_use(
    tmp_path: Path, hash_encoder, damage: str
) -> None:
    path = tmp_path / "vectors.npz"
    first = RememberingEncoder(hash_encoder, path, key="k")
    first.encode(["one"])
    first.save()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("no vectors")
    elif damage == "pickle":
        np.savez(path, key=np.array([{}], dtype=object))
    key = "other" if damage == "other key" else "k"
    again = RememberingEncoder(hash_encoder, path, key=key)
    again.encode(["one"])
    assert hash_encoder.encoded == ["one", "one"]


def test_encoder_key_changes_with_the_graph_and_how_it_is_used(bundle: Bundle) -> None:
    cut = replace(bundle, manifest=replace(bundle.manifest, max_tokens=8))
    files = {n: replace(f, sha256="0" * 64) for n, f in bundle.manifest.files.items()}
    other = replace(bundle, manifest=replace(bundle.manifest, files=files))
    assert len({encoder_key(b) for b in (bundle, cut, other)}) == 3
    assert encoder_key(bundle) == encoder_key(replace(bundle, base_id="another, by its maps"))
