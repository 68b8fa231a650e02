"""Running commands inside the test's own process, and an engine that only remembers."""

import json
import sys
import weakref
from dataclasses import dataclass, field, replace

import pytest
from filled_store import generation_of, put_choice
from typer.main import get_command
from typer.testing import CliRunner

from hydra_edge.cli.app import app
from hydra_edge.config import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.store import Store
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import (
    Candidate,
    ChoiceResult,
    FitReport,
    Gain,
    Generation,
    HeadInfo,
    RankedRecord,
    Ranking,
    Record,
    ReportRow,
    RoleReport,
    Usage,
)

COMMAND = get_command(app)  # built once: `CliRunner.invoke` builds it at every call


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self):
        return self.stdout + self.stderr


def call(*args, text=None, opener=None):
    """Run a command with this text on stdin."""
    with CliRunner().isolation(input=text) as (out, err, _):
        try:
            COMMAND.main(args, prog_name="hydra-edge", obj=opener)
        except SystemExit as stop:
            code = stop.code or 0
        sys.stdout.flush()
        sys.stderr.flush()
        return Result(code, out.getvalue().decode(), err.getvalue().decode())


def loaded(*args):
    """Run a command that must succeed and answer in JSON; return that."""
    result = call(*args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def states(findings):
    """Return what `doctor` says of each thing it looked at."""
    return {finding["name"]: finding["state"] for finding in findings}


def records(user="me"):
    """Return what a user's file holds."""
    with Store.open(find_paths().user_file(user), create=False) as store:
        return store.records()


HEAD = HeadInfo("commit_subject", "reranker", "personal", 3, "b" * 64, 40, "it helps")
RECORD = Record(
    "Parser read\x1b[2J past the end", "Fix [bold]empty[/] files", "commit_subject", "r1", 1.7e9
)
RANKED = RankedRecord(RECORD, 1.25, {"bm25": 1.0, "recency": 0.25})


@dataclass
class FakeLLM:
    """Says what it is."""

    name: str = "fake"
    is_remote: bool = False


@dataclass
class FakePersonalizer:
    """Remembers what it was asked and answers from a script."""

    user: str = "me"
    config: object = None
    llm: object = field(default_factory=FakeLLM)
    store: Store = field(default_factory=Store.in_memory)
    calls: list = field(default_factory=list)
    opened: list = field(default_factory=list)
    pieces: tuple = ()
    text: str = "Fix empty files"
    error: Exception | None = None

    def __post_init__(self):
        # No test closes its fake's store, so it is closed with the fake. Those that the product
        # opens are not: Python tells of one that is left open, and the tests fail.
        weakref.finalize(self, self.store.close)

    def open(self, user, *, create, config, paths):
        if self.error:
            raise self.error
        self.opened.append((user, create, config, paths))
        self.user, self.config = user or config.user, config
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.calls.append(("close", {}))

    def asked(self, name):
        return [flags for call, flags in self.calls if call == name]

    def add(self, records, *, inherit_private=True, progress=None):
        return self.store.add(records, progress=progress)

    def forget(self, ids=(), *, source=None, task=None, on_erased=None, progress=None):
        self.calls.append(("forget", {"ids": ids, "source": source, "task": task}))
        receipt = self.store.forget(ids, source=source, task=task)
        if on_erased:
            on_erased(receipt)
        return receipt

    def task(self, name=None):
        return BUILTIN[name or "commit_subject"]

    def rank(self, query, *, progress=None, **flags):
        self.calls.append(("rank", {"query": query, **flags}))
        return Ranking(query, "commit_subject", (RANKED,), HEAD)

    def render_prompts(self, query, *, progress=None, **flags):
        self.calls.append(("render_prompts", {"query": query, **flags}))
        return [f"Text: {query}\nSubject:"]

    def generate(
        self, query, *, on_token=None, should_stop=None, on_candidate=None, on_start=None,
        progress=None, **flags,
    ):  # fmt: skip
        self.calls.append(("generate", {"query": query, "streams": on_token is not None, **flags}))
        for piece in self.pieces if on_token else ():
            on_token(piece)
        candidates = (
            Candidate("Handle files", 1, True, -0.5, 0.25, {"greedy": 0.25}),
            Candidate(self.text, 3, False, None, 1.5, {"consensus": 1.0, "habit": 0.5}),
        )
        return Generation(
            id="g1", query=query, task="commit_subject", text=self.text, candidates=candidates,
            records=(RANKED,), head=replace(HEAD, role="adapter"), reranker=HEAD,
            usage=Usage(1, 100, 20, 8, 7, 12.5), notes=("7 of 8 candidates arrived",),
        )  # fmt: skip

    def choose(self, *, progress=None, should_stop=None, **flags):
        self.calls.append(("choose", flags))
        return ChoiceResult("g1", "commit_subject", "Fix empty files", 4, "choice-g1", 0.8)

    def fit_prompts(self, task=None, *, calls=None, progress=None):
        self.calls.append(("fit_prompts", {"task": task, "calls": calls}))
        return ["prompt A", "prompt B"]

    def fit_head(self, task=None, *, progress=None, **flags):
        self.calls.append(("fit_head", {"task": task, **flags}))
        rows = (
            ReportRow("unpersonalized", 0.2, 20),
            ReportRow("prompt-only RAG", 0.254, 20),
            ReportRow("shared head", 0.286, 20),
            ReportRow("my head", None, 0, "no LLM was asked"),
        )
        role = RoleReport(
            "reranker", "personal", "it helps", rows, None, Gain(0.031, 0.012, 20), 40, 1.0, 3
        )
        return FitReport(task or "x", "text", 40, (role,), 5, 75, 6, 1, 2, 0.25, ("a remark",))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Let these tests run in a folder of their own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def history():
    """Add five records of two tasks and two sources to the default user; give them."""
    new = [
        Record("first text", "First", "note_title", "r1", 1.0, False, "a"),
        Record("second text\x1b[2J", "Second [bold]", "note_title", "r2", 2.0, True, "a"),
        Record("third text", "Third", "chat", "r3", 3.0, False, "b"),
        Record("日本語のテキスト", "見出し 😀", "chat", "r4", 4.0, False, "b"),
        Record("שלום", "עולם\nשורה", "chat", "r5", None, False, "b"),
    ]
    with Personalizer.open(create=True) as me:
        me.add(new)
    return new


def answer_twice(monkeypatch):
    """Log answers of the 30th and the 31st of January, and an own choice of each."""
    for id_, moment in (("a", 1769731200.0), ("b", 1769817600.0)):
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        with Personalizer.open(create=True) as me:
            me.store.log_generation(generation_of(id_, "asked", "x"), "m")
            put_choice(me.store, id_, "chat", "asked", text="taken")


def logged():
    """Return which of these answers are still logged, and which are chosen from."""
    with Personalizer.open() as me:
        kept = [id_ for id_ in "ab" if me.store.generation(id_) is not None]
        return kept, [choice.generation_id for choice in me.store.choices()]
