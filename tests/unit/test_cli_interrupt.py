"""Ctrl-C while an answer is written or a head fitted: what is finished is the result."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import cli_runner
import pytest
from cli_runner import FakePersonalizer
from conftest import ScriptedLLM

from hydra_edge.cli import output
from hydra_edge.errors import CancelledError
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Completion, Record


@pytest.fixture(autouse=True)
def _interruptible():
    """Let Ctrl-C raise: whatever runs in the background is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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


@pytest.mark.parametrize(
    ("flags", "terminal", "counted"),
    [
        ((), True, True),
        ((), False, False),
        (("--json",), True, False),
        (("--explain",), True, False),
        (("-n", "1", "--no-stream"), True, False),
    ],
)
def test_generate_counts_candidates_at_a_terminal(monkeypatch, flags, terminal, counted):
    seen = []

    @contextmanager
    def progress(*, quiet=False):
        yield lambda *state: seen.append(state)
        seen.append(f"gone before {sys.stdout.buffer.getvalue()!r}")

    monkeypatch.setattr(output, "progress", progress)
    monkeypatch.setattr(output, "is_terminal", lambda stream: terminal and stream is sys.stderr)
    result = call(Interrupted(2), *flags)

    told = [("candidates", done, 8) for done in range(3)]
    assert seen == ([*told, "gone before b''"] if counted else [])
    assert "Subject" in result.stdout


def test_generate_without_interrupt_ends_well():
    assert cli_runner.call("generate", "q", opener=FakePersonalizer().open).exit_code == 0


class Choosing(FakePersonalizer):
    """Encodes what was imported before it learns from a choice, and is interrupted meanwhile."""

    def __init__(self, interrupts=1, fault=None):
        super().__init__()
        self.interrupts, self.fault = interrupts, fault

    def choose(self, *, progress=None, should_stop=None, **flags):
        progress("embed", 1, 4)
        for _ in range(self.interrupts):
            signal.raise_signal(signal.SIGINT)
        if self.fault:
            assert should_stop() is bool(self.interrupts)
            raise CancelledError(self.fault)
        return super().choose(**flags)


def test_choose_interrupted_while_it_learns_says_that_the_choice_is_kept():
    stopped = "Learning was stopped: got 1 of 4 done. The choice is kept."
    before = signal.getsignal(signal.SIGINT)
    result = cli_runner.call("choose", "2", opener=Choosing(fault=stopped).open)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Stopping: the choice is kept" in result.stderr
    assert stopped in result.stderr
    assert signal.getsignal(signal.SIGINT) is before
    shown = cli_runner.call("choose", "2", "--json", opener=Choosing(fault=stopped).open)
    assert shown.exit_code == 130
    assert json.loads(shown.stdout)["error"]["code"] == "cancelled"


def test_choose_interrupted_as_it_ends_says_what_was_learned():
    result = cli_runner.call("choose", "2", opener=Choosing().open)
    assert result.exit_code == 130
    assert "your head is now v4" in result.stderr


def test_choose_interrupted_twice_ends_at_once():
    result = cli_runner.call("choose", "2", opener=Choosing(interrupts=2).open)
    assert (result.exit_code, result.stdout) == (130, "")


def test_choice_that_was_forgotten_meanwhile_is_no_interrupt():
    me = Choosing(interrupts=0, fault="Nothing was learned: the choice was forgotten.")
    assert cli_runner.call("choose", "2", opener=me.open).exit_code == 1


def test_choose_shows_how_far_the_encoding_is(monkeypatch):
    seen = []

    @contextmanager
    def progress(*, quiet=False):
        yield lambda *state: seen.append((state, quiet))

    monkeypatch.setattr(output, "progress", progress)
    cli_runner.call("choose", "2", opener=Choosing(interrupts=0).open)
    assert seen == [(("embed", 1, 4), False)]


class Bought(ScriptedLLM):
    """An LLM whose answers are interrupted once so many pools have been bought."""

    def __init__(self, pools, interrupts=1):
        super().__init__(lambda prompt, n: [f"a title of {i} words" for i in range(n)])
        self.pools, self.interrupts = pools, interrupts

    def complete(self, prompt, *, should_stop=None, **options):
        out = super().complete(prompt, **options)
        if len(self.prompts) >= self.pools:
            for _ in range(self.interrupts):
                signal.raise_signal(signal.SIGINT)
            assert should_stop is None or should_stop()
        return out


TITLES = [
    *(Record(f"a text about {i} things today", f"Title {i}", "note_title") for i in range(12)),
    *(Record(f"a text about {i} things", f"Answer {i}", "chat") for i in range(6)),
]


def fit(llm, hash_encoder, *args):
    """Fit heads with this LLM on a small history."""

    def opener(*_, **__):
        return Personalizer.from_records(TITLES, llm=llm, encoder=hash_encoder)

    return cli_runner.call("fit-head", "--calls", "500", *args, opener=opener)


def test_fit_head_interrupted_while_it_buys_fits_on_what_there_is(hash_encoder):
    before = signal.getsignal(signal.SIGINT)
    llm = Bought(2)
    result = fit(llm, hash_encoder, "-t", "note_title")
    assert result.exit_code == 130
    assert len(llm.prompts) == 2
    assert "Stopping: the heads are fitted on the answers there are" in result.stderr
    assert "prompt-only RAG" in result.stdout
    assert "stopped" in result.stdout
    assert signal.getsignal(signal.SIGINT) is before


def test_fit_head_interrupted_leaves_the_other_tasks_and_says_so(hash_encoder):
    result = fit(Bought(2), hash_encoder)
    assert result.exit_code == 130
    assert "Not fitted: chat." in result.stderr
    payload = json.loads(fit(Bought(2), hash_encoder, "--json").stdout)
    assert [report["task"] for report in payload["reports"]] == ["note_title"]
    assert payload["interrupted"] is True
    assert "error" not in payload


def test_fit_head_interrupted_twice_ends_at_once_with_a_word(hash_encoder):
    result = fit(Bought(1, interrupts=2), hash_encoder, "-t", "note_title")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "The fit was interrupted" in result.stderr
    payload = json.loads(fit(Bought(1, interrupts=2), hash_encoder, "--json").stdout)
    assert (payload["reports"], payload["interrupted"]) == ([], True)
    assert payload["error"]["code"] == "cancelled"


class Early(FakePersonalizer):
    """Is told to stop before there is anything to fit on, or interrupted while it opens."""

    def fit_head(self, task=None, *, should_stop, **_):
        if task == "chat":
            return super().fit_head(task)
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        raise CancelledError("The fit was stopped: got 0 of 9 done.")


def test_fit_head_interrupted_before_anything_is_learned_keeps_what_was_reported():
    me = Early()
    me.store.add([*(Record(f"a{i}", "b", "chat") for i in range(3)), Record("a", "b", "tweet")])
    result = cli_runner.call("fit-head", "--no-llm", "--json", opener=me.open)
    assert result.exit_code == 130
    assert "got 0 of 9 done" in result.stderr
    payload = json.loads(result.stdout)
    assert [report["task"] for report in payload["reports"]] == ["chat"]
    assert payload["error"]["code"] == "cancelled"


def test_fit_head_interrupted_while_it_opens_prints_an_object():
    def opener(*_, **__):
        signal.raise_signal(signal.SIGINT)

    result = cli_runner.call("fit-head", "--json", opener=opener)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["error"]["code"] == "cancelled"


def test_fit_head_without_interrupt_ends_well():
    result = cli_runner.call("fit-head", "-t", "chat", "--json", opener=FakePersonalizer().open)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["interrupted"] is False


class HastyRanking(FakePersonalizer):
    """Is interrupted while it ranks."""

    def rank(self, query, **_):
        signal.raise_signal(signal.SIGINT)


def test_rank_interrupted_prints_an_object():
    result = cli_runner.call("rank", "q", "--json", opener=HastyRanking().open)
    assert result.exit_code == 130
    assert json.loads(result.stdout)["error"]["code"] == "cancelled"
    result = cli_runner.call("rank", "q", opener=HastyRanking().open)
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Ranking was interrupted" in result.stderr


# ---- SIGTERM

HALF_WRITTEN = """
import sys
from hydra_edge import cli
from hydra_edge.store import backup

def stop_here(*_):
    print("here", flush=True)
    while True:
        sys.stdin.read(1)

backup.copy_pages = stop_here
sys.argv[1:] = ["history", "backup", sys.argv[1]]
cli.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="ends a program at once elsewhere")
def test_sigterm_leaves_no_backup_half_written(tmp_path):
    with Personalizer.open(create=True) as me:
        me.add(Record("text", "Title", "note_title", "r1"))
    folder = tmp_path / "backups"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WRITTEN, str(folder / "me.db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdout.readline() == b"here\n"
        assert len(list(folder.glob(".me.db.*.tmp"))) == 1
        child.terminate()
        assert child.wait(60) == 143
    assert list(folder.iterdir()) == []
