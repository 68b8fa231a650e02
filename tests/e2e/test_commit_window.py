"""The commit window under Xvfb: real widgets, a real repository, real commits.

Set HYDRA_EDGE_SCREENSHOTS=docs/images to have the picture in the docs taken anew.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from serving import EchoLLM

from hydra_edge.config import Config, find_paths
from hydra_edge.errors import StoreError
from hydra_edge.importers import ImportLog, read_git
from hydra_edge.llm import LLM
from hydra_edge.llm.models import open_llm
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion

OpenWindow = Callable[[LLM], Any]  # the window's class is loaded from the example's file

# Where they have to run, what they need is not there to be missed in silence.
REQUIRED = os.environ.get("HYDRA_EDGE_REQUIRE_BROWSER") == "1"
if not REQUIRED:
    pytest.importorskip("tkinter", reason="needs Tk: apt-get install python3-tk")
import tkinter as tk  # noqa: E402 - or the tests were skipped

pytestmark = [
    pytest.mark.window,
    pytest.mark.skipif(
        not (REQUIRED or shutil.which("Xvfb")), reason="needs Xvfb: apt-get install xvfb"
    ),
]

ROOT = Path(__file__).parents[2]
WINDOW = ROOT / "examples" / "commit_window.py"
EMAIL = "ada@example.org"
# What one author writes: the area, a colon, an imperative in small letters.
COMMITS = (
    ("parser: keep blank lines inside quotes",
     "Notes quoted from mail lost their paragraphs, because the parser dropped blank lines "
     "everywhere. Inside a quote they now stay."),
    ("search: rank titles above bodies",
     "A word in the title says more of a note than the same word in its text, so titles count "
     "three times."),
    ("sync: retry when the server is busy",
     "The server answers 503 while it compacts. Retry with growing waits instead of giving up "
     "and leaving half of the notes behind."),
    ("parser: accept tabs before list items",
     "Some editors indent lists with tabs. The parser took those items for code."),
    ("export: write dates in ISO format",
     "The exported dates followed the locale, so that no other program could read them back."),
    ("search: forget deleted notes",
     "A deleted note stayed in the search index until the next start. Remove it at once."),
    ("sync: never send notes marked as private",
     "The private mark was looked at after the upload had begun. Look at it before anything "
     "leaves the device."),
    ("parser: name the line of a broken table",
     "The message only said that some table is broken. It now names the file and the line."),
    ("export: keep the order of attachments",
     "Attachments came out in the order of the file system. They now come out as they were added."),
    ("search: split words at underscores",
     "A search for cache did not find disk_cache. Underscores now end a word."),
    ("sync: close the connection after an error",
     "A failed upload left its connection open, and after some failures none was left."),
    ("parser: read links that span two lines",
     "Long links broken by a mail program were read as text. Join the lines first."),
    ("export: stop when the disk is full",
     "The export went on without room and left empty files. It now stops and says so."),
    ("search: show where a word was found",
     "The list of results showed the first line of a note, whatever was sought. Show the line "
     "with the word."),
)  # fmt: skip
CHANGE = "def split_words(text):\n    return text.replace('-', ' ').split()\n"
NEXT_CHANGE = """\
def upload(notes):
    # Wait for the network instead of failing while the device is in flight mode.
    wait_for_network()
    send(notes)
"""
SUBJECTS = (
    "Update search.py", "search: split words at hyphens", "Fix word splitting in the search",
    "search: split words at hyphens", "Split words", "search: handle hyphens",
)  # fmt: skip


class Repo:
    """A real repository of one author, with a staged change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        for name, value in (("user.name", "Ada"), ("user.email", EMAIL), ("commit.gpgsign", "no")):
            self.git("config", name, value)
        for i, (subject, body) in enumerate(COMMITS):
            area = subject.partition(":")[0]
            self.write(f"{area}.py", f"# step {i}\n")
            self.git("commit", "--quiet", "--file=-", text=f"{subject}\n\n{body}\n", when=i)
        self.write("search.py", CHANGE)

    def git(self, *words: str, text: str = "", when: int = 0) -> str:
        date = f"{1_700_000_000 + 3600 * when} +0000"
        dates = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        command = ["git", "-C", str(self.path), *words]
        return subprocess.run(
            command, input=text, text=True, check=True, capture_output=True, env=os.environ | dates
        ).stdout

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text)
        self.git("add", name)

    def message(self) -> str:
        return self.git("log", "-1", "--format=%B").strip()


class PausingLLM(EchoLLM):
    """Tells of a first candidate, then waits: for leave to go on, or to be stopped."""

    name = "pausing"

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Event()
        self.proceed = threading.Event()
        self.stopped = False
        self.prompts: list[Prompt] = []

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
        **_options: object,
    ) -> list[Completion]:
        assert should_stop is not None
        self.prompts.append(prompt)
        self.started.set()
        while not self.proceed.wait(0.01):
            if should_stop():
                self.stopped = True
                return []
        answers = [Completion(text, greedy=i == 0, tokens=5) for i, text in enumerate(SUBJECTS)]
        for answer in answers:
            if on_candidate is not None:
                on_candidate(answer)
        return answers


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """Start an X server of our own; it says by itself when it is ready, and as what."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "828x668x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=(write,), stderr=subprocess.DEVNULL) as server:
        os.close(write)
        try:
            with os.fdopen(read) as ready:
                number = ready.readline().strip()
            assert number, "Xvfb did not start"
            yield f":{number}"
        finally:
            server.terminate()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return Repo(tmp_path / "notes")


@pytest.fixture
def open_window(display: str, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenWindow]:
    """Open the example's window for a person, their commits read and learned from."""
    monkeypatch.setenv("DISPLAY", display)
    spec = importlib.util.spec_from_file_location("commit_window", WINDOW)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "commit_window", module)
    spec.loader.exec_module(module)
    opened: list[Any] = []

    def make(llm: LLM) -> Any:
        person = Personalizer.open("ada", create=True, llm=llm)
        window = module.CommitWindow(tk.Tk(), person, repo.path)
        opened.append(window)
        window.bind("<Destroy>", lambda _event: opened.remove(window))
        until_idle(window)
        return window

    yield make
    window = None
    for window in [*opened]:
        window.close()
        if window in opened:
            window.wait_window()  # until its worker has come back
    del window
    gc.collect()  # here: a later window's worker must not be the one to collect Tk's variables


def until_idle(window: Any) -> None:
    """Let the window live until its worker has reported back."""
    while window.busy.get():
        window.wait_variable(window.busy)
    window.update()


def shown(table: Any) -> list[tuple[str, ...]]:
    return [tuple(map(str, table.item(row, "values"))) for row in table.get_children()]


def propose(window: Any) -> None:
    window.propose_button.invoke()
    until_idle(window)


def pick(window: Any, subject: str) -> None:
    place = [row[-1] for row in shown(window.candidates)].index(subject)
    window.candidates.selection_set(window.candidates.get_children()[place])
    window.update()


def answering() -> PausingLLM:
    llm = PausingLLM()
    llm.proceed.set()
    return llm


def test_window_pick_is_committed_and_moves_the_head(open_window: OpenWindow, repo: Repo) -> None:
    window = open_window(answering())
    assert "14 commits of yours are known, 14 new" in window.status.get()
    assert "search.py" in window.body.get("1.0", "end")
    assert window.commit_button.instate(["disabled"])

    propose(window)
    rows = shown(window.candidates)
    assert {row[-1] for row in rows} == set(SUBJECTS)
    scores = [float(row[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert window.generation.abstained is False
    assert window.subject.get() == rows[0][-1]
    assert window.why.get().startswith("Why: ")

    last = replace(window.generation, text=rows[-1][-1], abstained=True)
    window._show(last)
    window.update()
    assert window.subject.get() == rows[-1][-1], "the answer, where the best was too close to call"

    pick(window, "search: handle hyphens")
    assert window.subject.get() == "search: handle hyphens"
    window.commit_button.invoke()
    until_idle(window)

    assert repo.message() == "search: handle hyphens"
    (choice,) = window.person.store.choices("commit_subject")
    assert choice.text == "search: handle hyphens"
    assert choice.picked is not None
    assert window.person.store.tasks() == {"commit_subject": len(COMMITS) + 1}
    assert window.gain.get().startswith("Your pick: head shared -> v1")
    assert [row[0] for row in shown(window.gains)] == ["commits shown", "subject chosen"]
    assert "n=" in shown(window.gains)[0][1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the history of a clone")
def test_window_learns_from_the_real_history_of_this_project(
    open_window: OpenWindow, repo: Repo
) -> None:
    repo.git("rm", "--quiet", "--cached", "search.py")  # nothing staged may be in the way
    (repo.path / "search.py").unlink()
    repo.git("fetch", "--quiet", str(ROOT), "HEAD")
    repo.git("reset", "--quiet", "--hard", "FETCH_HEAD")
    repo.git("config", "user.email", repo.git("log", "-1", "--format=%ae").strip())
    subjects = set(repo.git("log", "--format=%s").splitlines())
    repo.write("search.py", CHANGE)

    llm = answering()
    window = open_window(llm)
    propose(window)
    records = {shot.output for shot in llm.prompts[-1].shots}
    assert len(records) == 4
    assert records <= subjects
    pick(window, "search: handle hyphens")
    window.commit_button.invoke()
    until_idle(window)
    assert repo.message() == "search: handle hyphens"
    assert window.gain.get().startswith("Your pick: head shared -> v1")


def test_window_edited_subject_and_body_are_what_is_committed(
    open_window: OpenWindow, repo: Repo
) -> None:
    llm = answering()
    window = open_window(llm)
    window.body.delete("1.0", "end")
    window.body.insert("1.0", "A search for disk did not find disk-cache.")
    propose(window)
    assert llm.prompts[-1].query == "A search for disk did not find disk-cache."
    window.entry.delete(0, "end")
    window.entry.insert(0, "search: end words at hyphens")
    window.entry.focus_force()
    window.entry.event_generate("<Return>")
    until_idle(window)

    assert repo.message() == (
        "search: end words at hyphens\n\nA search for disk did not find disk-cache."
    )
    (choice,) = window.person.store.choices("commit_subject")
    assert choice.text == "search: end words at hyphens"
    assert choice.picked is None
    kept = window.person.store.get(repo.git("rev-parse", "HEAD").strip())
    assert (kept.input, kept.output) == ("A search for disk did not find disk-cache.", choice.text)
    assert choice.record_id == kept.id
    assert window.person.store.tasks() == {"commit_subject": len(COMMITS) + 1}
    assert "15 commits of yours are known, 0 new" in open_window(llm).status.get()


def test_window_cancel_stops_the_llm_and_leaves_the_window_usable(open_window: OpenWindow) -> None:
    llm = PausingLLM()
    window = open_window(llm)
    window.propose_button.invoke()
    assert llm.started.wait(60)
    window.update()
    assert window.propose_button.instate(["disabled"])
    window.cancel_button.invoke()
    until_idle(window)
    assert llm.stopped
    assert shown(window.candidates) == []
    assert "stop" in window.status.get().lower() or "cancel" in window.status.get().lower()

    llm.proceed.set()
    propose(window)
    assert len(shown(window.candidates)) == len(set(SUBJECTS))


def test_window_closed_while_asking_stops_the_llm_first(open_window: OpenWindow) -> None:
    llm = PausingLLM()
    window = open_window(llm)
    window.propose_button.invoke()
    assert llm.started.wait(60)
    window.close()
    window.mainloop()  # returns when the window is gone
    assert llm.stopped
    with pytest.raises(StoreError, match="has been closed"):
        window.person.store.tasks()


def test_window_describes_what_is_staged_when_asked_unless_edited(
    open_window: OpenWindow, repo: Repo
) -> None:
    llm = answering()
    window = open_window(llm)
    repo.write("sync.py", NEXT_CHANGE)
    propose(window)
    assert "upload" in llm.prompts[-1].query
    window.body.insert("1.0", "My own words: ")
    repo.write("export.py", "def to_html():\n    pass\n")
    propose(window)
    assert llm.prompts[-1].query.startswith("My own words: ")
    assert "to_html" not in llm.prompts[-1].query


def test_window_commit_refused_by_a_hook_records_nothing(
    open_window: OpenWindow, repo: Repo
) -> None:
    hook = repo.path / ".git" / "hooks" / "commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho no ticket number >&2\nexit 1\n")
    hook.chmod(0o755)
    before = repo.message()
    window = open_window(answering())
    propose(window)
    window.commit_button.invoke()
    until_idle(window)
    assert "no ticket number" in window.status.get()
    assert repo.message() == before
    assert window.person.store.choices("commit_subject") == []
    assert window.commit_button.instate(["!disabled"])


def test_window_repository_without_own_commits_says_so_and_still_proposes(
    open_window: OpenWindow, repo: Repo
) -> None:
    repo.git("config", "user.email", "nobody@example.org")
    window = open_window(answering())
    assert "nobody@example.org" in window.status.get()
    propose(window)
    assert {row[-1] for row in shown(window.candidates)} == set(SUBJECTS)


@pytest.mark.model
def test_window_with_a_real_llm_proposes_and_learns(
    open_window: OpenWindow, repo: Repo, display: str
) -> None:
    llm = open_llm("smollm2", Config(threads=1), find_paths())
    window = open_window(llm)
    propose(window)
    subjects = [row[-1] for row in shown(window.candidates)]
    assert subjects
    assert all(subject.strip() for subject in subjects)
    window.commit_button.invoke()
    until_idle(window)
    assert repo.message() == subjects[0]
    assert "-> v1" in window.gain.get()
    if folder := os.environ.get("HYDRA_EDGE_SCREENSHOTS"):
        repo.write("sync.py", NEXT_CHANGE)
        propose(window)
        picture = Path(folder) / "commit-window.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["import", "-display", display, "-window", "root", picture], check=True)
    llm.close()


def test_window_commits_of_a_private_repository_are_private(
    open_window: OpenWindow, repo: Repo
) -> None:
    with Personalizer.open("ada", create=True) as person:
        person.add(read_git(repo.path, ImportLog(), limit=1, private=True))
    window = open_window(answering())
    assert "14 commits of yours are known, 13 new" in window.status.get()
    propose(window)
    window.commit_button.invoke()
    until_idle(window)

    found = window.person.store.records()
    assert len(found) == len(COMMITS) + 1
    assert all(record.private for record in found)


def test_window_example_stays_below_two_hundred_lines() -> None:
    assert len(WINDOW.read_text(encoding="utf-8").splitlines()) < 200
