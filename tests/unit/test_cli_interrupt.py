"""Ctrl-C while an answer is written: what is finished is the answer."""

import json
import signal

import cli_runner
from cli_runner import FakePersonalizer
from conftest import ScriptedLLM

from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion


class Interrupted(ScriptedLLM):
    """An LLM that is interrupted after so many candidates, and asks whether to stop."""

    def __init__(self, finished, interrupts=1):
        super().__init__(lambda prompt, n: [])
        self.finished, self.interrupts = finished, interrupts

    def complete(self, prompt, *, should_stop=None, on_candidate=None, **_):
        out = []
        for i in range(self.finished):
            out.append(Completion(f"Subject {i}", greedy=i == 0))
            if on_candidate is not None:
                on_candidate(out[-1])
        for _ in range(self.interrupts):
            signal.raise_signal(signal.SIGINT)
        assert should_stop()
        return out


def call(llm, *args):
    """Answer with this LLM on an empty history."""

    def opener(*_, **__):
        return Personalizer.from_records([], llm=llm)

    return cli_runner.call("generate", "a query", "-t", "commit_subject", *args, opener=opener)


def test_generate_interrupted_answers_with_what_is_finished():
    before = signal.getsignal(signal.SIGINT)
    result = call(Interrupted(3))
    assert result.exit_code == 130
    assert result.stdout.strip() in {"Subject 0", "Subject 1", "Subject 2"}
    assert "Stopping with the candidates that are finished" in result.stderr
    assert "3 of 8 candidates arrived" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before


def test_generate_interrupted_before_anything_is_finished_says_so():
    result = call(Interrupted(0))
    assert (result.exit_code, result.stdout) == (130, "")
    assert "got none of 8 candidates finished" in result.stderr
    payload = json.loads(call(Interrupted(0), "--json").stdout)
    assert payload["error"]["code"] == "cancelled"


def test_second_interrupt_ends_at_once():
    result = call(Interrupted(2, interrupts=2))
    assert (result.exit_code, result.stdout) == (130, "")


def test_generate_explained_shows_candidates_as_they_are_finished():
    shown = call(Interrupted(2), "--explain").stderr
    assert "candidate: Subject 0" in shown
    assert "candidate: Subject 1" in shown
    assert "candidate:" not in call(Interrupted(2)).stderr


def test_generate_without_interrupt_ends_well():
    assert cli_runner.call("generate", "q", opener=FakePersonalizer().open).exit_code == 0
