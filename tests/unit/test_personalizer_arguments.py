"""What the Python API is given: what cannot be used is refused in words, before all else."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ScriptedLLM
from learned_titles import TASK
from title_writer import Make, people

from hydra_edge.errors import ConfigError
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Record


@pytest.fixture
def person(hash_encoder, scripted):
    yield from people(hash_encoder, scripted)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n": 0}, "this call: candidates = 0 cannot be used; expected 1 or more, and 64 at most"),
        ({"n": 65}, "this call: candidates = 65 cannot be used"),
        ({"n": True}, "this call: candidates = True cannot be used"),
        ({"k": "4"}, "this call: records = '4' cannot be used"),
        ({"k": 1.5}, "this call: records = 1.5 cannot be used"),
        ({"k": -1}, "this call: records = -1 cannot be used; expected 0 or more"),
        ({"temperature": -0.1}, "this call: temperature = -0.1 cannot be used"),
        ({"temperature": float("nan")}, "this call: temperature = nan cannot be used"),
    ],
)
def test_generate_refuses_numbers_no_setting_can_have(
    person: Make, asked: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        person().generate("any query", **asked)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p: p.rank(None), "query"),
        (lambda p: p.rank(b"x"), "query"),
        (lambda p: p.rank("x", k=1.5), "k"),
        (lambda p: p.rank("x", k=-1), "k"),
        (lambda p: p.generate("x", task=3), "task"),
        (lambda p: p.choose(pick="1"), "pick"),
        (lambda p: p.choose(pick=True), "pick"),
        (lambda p: p.choose(text=5), "text"),
        (lambda p: p.fit_head(calls="3"), "calls"),
        (lambda p: p.fit_head(calls=-1), "calls"),
        (lambda p: p.fit_head(budget_s=float("nan")), "budget_s"),
        (lambda p: p.forget([5]), "id"),
        (lambda p: Personalizer.open(5), "user"),
    ],
)
def test_what_is_no_text_or_number_is_refused_in_words(person: Make, call: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is .*; expected (text|a whole|a number)"):
        call(person())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        *(
            (lambda p, ask=ask, value=value: getattr(p, ask)("x", max_tokens=value), "max_tokens")
            for ask in ("generate", "render_prompts")
            for value in ("x", 1.5, True, 0)
        ),
        *(
            (lambda p, ask=ask, wrong=wrong: getattr(p, ask)("x", **wrong), next(iter(wrong)))
            for ask in ("generate", "render_prompts")
            for wrong in ({"seed": None}, {"seed": 1.5}, {"system": None}, {"system": 5},
                          {"private": "no"})
        ),
        (lambda p: p.generate("x", hide_private="no"), "hide_private"),
        (lambda p: p.rank("x", hide_private="no"), "hide_private"),
        (lambda p: p.render_prompts("x", stream="no"), "stream"),
        (lambda p: p.choose(generation_id=5, pick=1), "generation_id"),
        (lambda p: p.choose(pick=1, keep="no"), "keep"),
        (lambda p: p.choose(pick=1, source=None), "source"),
        (lambda p: p.forget(source=5), "source"),
        (lambda p: p.forget(task=5), "task"),
        (lambda p: p.forget(None), "ids"),
        (lambda p: p.clear_log(choices="no"), "choices"),
        *(
            (lambda p, value=value: p.clear_log(before=value), "before")
            for value in ("2026-01-31", True, math.nan, 1.7e12)  # the last is in milliseconds
        ),
        (lambda p: p.fit_head(use_llm="no"), "use_llm"),
        (lambda p: p.add(None), "records"),
        (lambda p: p.import_head(None), "text"),
    ],
)  # fmt: skip
def test_argument_that_cannot_be_used_is_refused_before_all_else(
    person: Make, hash_encoder, call: Any, name: str
) -> None:
    p = person()
    with pytest.raises(ConfigError, match=rf"^{name} is .*; expected "):
        call(p)
    assert hash_encoder.encoded == []


def test_numbers_of_numpy_are_numbers(person: Make) -> None:
    p = person()
    assert len(p.rank("a text about speech", k=np.int64(2)).records) == 2
    p.generate("about speech", n=np.int64(2), k=np.int32(1), temperature=np.float32(0.5))
    p.generate("about speech", seed=np.int64(-1), max_tokens=np.int32(5), private=np.False_)
    assert p.choose(pick=np.int64(1), keep=False).head_version == 1
    p.fit_head(calls=np.int64(0), budget_s=np.float64(0.0))


def test_one_id_by_itself_is_not_taken_letter_by_letter(person: Make) -> None:
    p = person([Record(f"input {i}", f"output {i}", TASK, id=str(i)) for i in range(15)])
    assert p.forget("12").records == 1
    left = {record.id for record in p.store.records()}
    assert left == {str(i) for i in range(15)} - {"12"}


class Noted(ScriptedLLM):
    """Notes of which types the numbers are that it is asked with."""

    def __init__(self) -> None:
        super().__init__(lambda _prompt, n: ["an answer"] * n)
        self.types: set[type] = set()

    def render(self, prompt: Prompt, **options: Any) -> str:
        self.types |= {type(options["max_tokens"]), type(options["seed"])}
        return super().render(prompt, **options)

    def complete(self, prompt: Prompt, **options: Any) -> list[Completion]:
        self.types |= {type(options["max_tokens"]), type(options["seed"])}
        return super().complete(prompt, **options)


def test_llm_is_asked_with_plain_numbers_which_json_can_hold(hash_encoder) -> None:
    llm = Noted()
    with Personalizer.from_records([Record("in", "out", TASK)], llm=llm, encoder=hash_encoder) as p:
        p.generate("about speech", seed=np.int64(3), max_tokens=np.int32(5))
        p.render_prompts("about speech", seed=np.int64(3), max_tokens=np.int32(5))
    assert llm.types == {int}


@pytest.mark.parametrize("llm", ["gemma3", ScriptedLLM, object()])
def test_what_is_no_llm_is_refused_before_a_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llm: Any
) -> None:
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(tmp_path))
    for make in (
        lambda: Personalizer.open("me", create=True, llm=llm),
        lambda: Personalizer.from_records([], llm=llm),
    ):
        with pytest.raises(
            ConfigError, match=r"^llm is .*; expected an object with name, .*open_llm"
        ):
            make()
    assert not list(tmp_path.rglob("*.db"))


def test_settings_and_places_of_another_kind_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^config is \{'model': 'x'\}; expected a Config\.$"):
        Personalizer.open("me", config={"model": "x"})
    with pytest.raises(ConfigError, match=r"^paths is 'home'; expected a Paths\.$"):
        Personalizer.open("me", paths="home")
