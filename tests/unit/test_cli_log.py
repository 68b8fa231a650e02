"""Answers given looked at again: `history log`, and `choose` without a number."""

from dataclasses import replace

import cli_runner
import pytest
from cli_runner import answer_twice, call, loaded, logged
from filled_store import generation_of

from hydra_edge.cli import views
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record

_own_folder, history = cli_runner.own_folder, cli_runner.history


@pytest.fixture
def answered(monkeypatch):
    answer_twice(monkeypatch)


@pytest.mark.usefixtures("answered")
def test_history_log_lists_answers_newest_first():
    told = loaded("history", "log", "--json")
    assert [entry["id"] for entry in told["answers"]] == ["b", "a"]
    assert (told["total"], told["left_out"]) == (2, 0)
    assert set(told["answers"][0]) == {
        "id", "text", "task", "query", "model", "time", "candidates", "chosen", "picked",
    }  # fmt: skip
    assert told["answers"][0]["time"] == 1769817600.0

    shown = call("history", "log", "--limit", "1")
    assert shown.stdout.splitlines()[1].split() == [
        "b", *views.when(1769817600.0).split(), "t", "own", "text", "asked", "->", "x",
    ]  # fmt: skip
    assert "1 shown of 2 answers" in shown.stderr
    assert loaded("history", "log", "-t", "chat", "--json")["answers"] == []


@pytest.mark.usefixtures("history")
def test_history_log_leaves_out_what_is_private_or_forgotten():
    with Personalizer.open() as me:
        kept = Record("its own query", "kept as a private answer", "t", "choice-kept", private=True)
        me.add(kept)
        for entry in (
            generation_of("plain", "asked", "x", ("r1",)),
            generation_of("names", "asked", "x", ("r1", "r2")),
            generation_of("holds", "asked", "was it kept as a  private answer?", ("r1",)),
            generation_of("kept", "its own query", "y"),
            generation_of("gone", "asked", "x", ("r3",)),
            generation_of("last", "third", "y", ("r4",)),
        ):
            me.store.log_generation(entry, "m")
    assert call("forget", "r3", "--yes").exit_code == 0

    told = loaded("history", "log", "--json")
    assert ([entry["id"] for entry in told["answers"]], told["left_out"]) == (["last", "plain"], 3)
    assert loaded("history", "log", "-n", "2", "--json") == told
    shown = call("history", "log")
    assert "2 shown of 5 answers; 3 of private records left out" in shown.stderr
    assert "answer?" not in shown.output
    every = loaded("history", "log", "--with-private", "--json")["answers"]
    assert [entry["id"] for entry in every] == ["last", "kept", "holds", "names", "plain"]
    assert call("history", "private", "r2", "choice-kept", "--off").exit_code == 0
    assert loaded("history", "log", "--json")["left_out"] == 0


@pytest.mark.usefixtures("answered")
def test_choose_with_nothing_lists_the_candidates_and_teaches_nothing():
    with Personalizer.open() as me:
        me.store.log_generation(generation_of("c", "asked", "x", sampled=("y", "z")), "m")
    choices = logged()[1]
    shown = call("choose")
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["t:", "#", "1*", "2", "3"]
    assert "Take one: hydra-edge choose N --id c" in shown.stderr
    assert "Another answer: --id ID, of hydra-edge history log" in shown.stderr
    assert [c["text"] for c in loaded("choose", "--json")["candidates"]] == ["x", "y", "z"]
    assert loaded("feedback", "--id", "a", "--json")["id"] == "a"
    assert logged()[1] == choices

    refused = call("choose", "9")
    assert refused.exit_code == 1
    assert "No candidate 9; expected 1 to 3. `hydra-edge choose` lists them." in refused.stderr
    assert "`hydra-edge choose --id a` lists them." in call("choose", "9", "--id", "a").stderr


@pytest.mark.usefixtures("history")
def test_choose_with_nothing_says_which_candidates_are_not_whole():
    made = generation_of("c", "asked", "x", sampled=("y", "z"))
    ends = zip(made.candidates, ("stop", "length", "cut"), strict=True)
    made = replace(made, candidates=tuple(replace(c, finish=end) for c, end in ends))
    with Personalizer.open() as me:
        me.store.log_generation(made, "m")
    shown = [" ".join(line.split()) for line in call("choose").stdout.splitlines()[2:]]
    assert [line.partition("1x")[2] for line in shown] == [" x", " at its limit y", " broken off z"]
    told = (loaded("choose", "--json"), *loaded("history", "log", "--json")["answers"])
    for answer in told:
        assert [c["finish"] for c in answer["candidates"]] == ["stop", "length", "cut"]


@pytest.mark.usefixtures("history")
def test_choose_with_nothing_before_any_answer_says_so():
    result = call("choose")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Generate one first" in result.stderr
