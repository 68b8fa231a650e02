"""An LLM's answers kept for a base: asked once, replayed without the model, packed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from export.cache import CachedLLM, answer_rows, answers_file, open_cached, pack_answers
from hydra_edge.errors import BackendError, ConfigError, ContextLengthError, HydraError
from hydra_edge.prompt import Prompt, build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion

PROMPT = build_prompt(BUILTIN["paper_title"], "a query", [])


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


def test_packed_answers_that_were_cut_short_are_told_by_name(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    path = tmp_path / "cache.jsonl"
    CachedLLM(scripted(lambda _p, n: ["answer"] * n), path).complete(PROMPT, n=8)
    pack_answers(path)
    packed = tmp_path / "cache.jsonl.gz"
    whole = packed.read_bytes()
    for content in (whole[:-20], whole[:12] + bytes(30), b"no gzip", gzip.compress(b"\xff")):
        packed.write_bytes(content)
        for read in (lambda: CachedLLM(None, path, name="scripted"), lambda: answer_rows(path)):
            with pytest.raises(HydraError, match=r"cache\.jsonl\.gz cannot be unpacked: .*anew"):
                read()


def test_answer_with_half_an_emoji_is_kept_as_it_came(
    tmp_path: Path, scripted: Callable[..., object]
) -> None:
    path = tmp_path / "cache.jsonl"
    inner = scripted(lambda _p, _n: ["bad\ud83d", "schön"])
    first = CachedLLM(inner, path).complete(PROMPT, n=2)
    again = CachedLLM(inner, path)
    assert again.complete(PROMPT, n=2) == first
    assert [c.text for c in first] == ["bad\ud83d", "schön"]
    assert (again.asked, len(inner.prompts)) == (0, 1)
    assert pack_answers(path) == 1
    assert CachedLLM(None, path, name="scripted").complete(PROMPT, n=2) == first
    CachedLLM(scripted(lambda _p, _n: ["schön"]), path).complete(PROMPT, seed=1)
    assert "schön" in path.read_text(encoding="utf-8"), "other answers are written as before"


@pytest.mark.parametrize("remote", [False, True])
def test_cached_llm_is_remote_as_its_inner_one_and_its_replay_is_not(
    tmp_path: Path, scripted: Callable[..., object], remote: bool
) -> None:
    inner = scripted(lambda _p, n: ["answer"] * n, is_remote=remote)
    llm = CachedLLM(inner, tmp_path / "cache.jsonl")
    assert llm.is_remote is remote
    assert not llm.replay().is_remote, "nothing leaves this machine"


def test_cached_llm_counts_what_was_asked_anew_and_what_failed(tmp_path: Path) -> None:
    class Narrow:
        name, is_remote = "narrow", False

        def complete(self, prompt: Prompt, *, n: int = 1, **_options: object) -> list[Completion]:
            if prompt.query == "too long":
                raise ContextLengthError("no room")
            answers = [Completion("yes", tokens=2) for _ in range(n)]
            return [replace(answers[0], greedy=True, prompt_tokens=7), *answers[1:]]

    llm = CachedLLM(Narrow(), tmp_path / "cache.jsonl")
    for query in ("a query", "too long", "a query"):
        with suppress(ContextLengthError):
            llm.complete(build_prompt(BUILTIN["paper_title"], query, []), n=3)
    spent = llm.spent
    assert (spent.prompts, spent.requests) == (1, 2)
    assert (spent.prompt_tokens, spent.answer_tokens) == (7, 6)
