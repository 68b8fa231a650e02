"""A commit-message window: subjects in your own style for what is staged, and what you gain.

    python examples/commit_window.py path/to/repository

Reads your own commits there (no LLM is asked), proposes subjects for the staged change, commits
with the one you pick or edit, and learns from it. Needs Tk (`apt install python3-tk`) and an LLM.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import tkinter as tk
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tkinter import ttk
from typing import Any

from hydra_edge import Personalizer
from hydra_edge.errors import ConfigError, HydraError
from hydra_edge.githook import Repository, as_before, describe_staged
from hydra_edge.githook.proposal import choose_committed, last_commit
from hydra_edge.importers import ImportLog, read_git
from hydra_edge.reasons import reasons
from hydra_edge.types import ChoiceResult, FitReport, Generation

TASK = "commit_subject"
NEWEST = 500  # of your commits are read: enough for a style, seconds to encode
Learned = tuple[int | None, ChoiceResult, FitReport]  # the head's version before, and after
ROLES = {"reranker": "commits shown", "adapter": "subject chosen"}


class CommitWindow(ttk.Frame):
    """The window; the engine works on a thread of its own, which never touches Tk."""

    def __init__(self, root: tk.Tk, person: Personalizer, repo: Path) -> None:
        super().__init__(root, padding=12)
        self.root, self.person, self.git = root, person, Repository(repo)
        self._worker, self._stop, self._closing = ThreadPoolExecutor(1), threading.Event(), False
        self.busy = tk.BooleanVar(root)
        self.subject, self.status, self.why, self.gain = (tk.StringVar(root) for _ in range(4))
        if root.tk.call("tk", "windowingsystem") == "x11":
            ttk.Style(root).theme_use("clam")  # elsewhere the system's own looks better
        self._build()
        self._begin()
        root.title(f"Commit in {self.git.root.name}")
        root.protocol("WM_DELETE_WINDOW", self.close)
        self._run(self._learn, self.status.set, "Reading your commits")

    def _build(self) -> None:
        self.pack(fill="both", expand=True)
        self._label(text="What the change does, and why (edited, it becomes the body)")
        self.body = tk.Text(self, height=4, width=80, wrap="word", font="TkTextFont", undo=True)
        self.body.pack(fill="x")
        (row := ttk.Frame(self, padding=(0, 8))).pack(fill="x")
        self.propose_button = ttk.Button(row, text="Propose subjects", command=self.propose)
        self.cancel_button = ttk.Button(row, text="Cancel", command=self._stop.set)
        self.commit_button = ttk.Button(row, text="Commit", command=self.commit)
        for button in (self.propose_button, self.cancel_button):
            button.pack(side="left", padx=(0, 8))
        self.commit_button.pack(side="right")
        self.candidates = self._table({"score": 60, "drawn": 60, "subject": 680}, 8)
        self.candidates.bind("<<TreeviewSelect>>", self._selected)
        self._label(textvariable=self.why)
        self.entry = ttk.Entry(self, textvariable=self.subject, font="TkTextFont")
        self.entry.bind("<Return>", lambda _event: self.commit_button.invoke())
        self.entry.pack(fill="x")
        self._label(text="Does it help you? Utility on your own later commits, and what is used")
        ways = ("for", "unpersonalized", "prompt-only RAG", "shared head", "my head", "used")
        self.gains = self._table(dict.fromkeys(ways, 130) | {ways[2]: 150}, 2)
        self._label(textvariable=self.gain)
        self._label(textvariable=self.status)

    def _label(self, **options: Any) -> None:
        ttk.Label(self, padding=(0, 6), wraplength=800, **options).pack(fill="x")

    def _table(self, columns: dict[str, int], rows: int) -> ttk.Treeview:
        table = ttk.Treeview(self, columns=list(columns), show="headings", height=rows)
        for name, width in columns.items():
            table.heading(name, text=name, anchor="w")
            table.column(name, width=width)
        table.pack(fill="both", expand=True)
        return table

    def _run(self, job: Callable[[], Any], done: Callable[[Any], None], status: str) -> None:
        self._stop.clear()
        self._set_busy(True)
        self._say(status, "...")
        self._wait(self._worker.submit(job), done)

    def _wait(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        self.status.set(self._said)
        if not future.done():
            self.root.after(30, self._wait, future, done)
            return
        self._set_busy(False)
        if self._closing:
            self.close()
        elif isinstance(error := future.exception(), HydraError):
            self.status.set(str(error))
        else:
            done(future.result())

    def _set_busy(self, busy: bool) -> None:
        self.propose_button.state(["disabled" if busy else "!disabled"])
        self.cancel_button.state(["!disabled" if busy else "disabled"])
        self.commit_button.state(["disabled" if busy or not self.generation else "!disabled"])
        self.busy.set(busy)

    def _begin(self) -> None:
        self.generation: Generation | None = None
        self._set_busy(False)
        self.candidates.delete(*self.candidates.get_children())
        self.described = describe_staged(self.git)
        self.body.replace("1.0", "end", self.described)

    def _say(self, *words: object) -> None:
        self._said = " ".join(map(str, words))  # _wait shows it

    def _learn(self) -> str:
        commits = read_git(self.git.root, ImportLog(), limit=NEWEST, task=TASK)
        added = self.person.add(as_before(commits, self.git, self.person.store)).added
        if added or self.person.store.head(TASK, "reranker") is None:
            self.person.fit_head(TASK, use_llm=False, progress=self._say)
        return f"{self.person.store.tasks().get(TASK, 0)} commits of yours are known, {added} new"

    def propose(self) -> None:
        if self.body.get("1.0", "end").strip() == self.described:
            self._begin()  # more may have been staged since
        generate = partial(
            self.person.generate, self.body.get("1.0", "end"), task=TASK,
            should_stop=self._stop.is_set, on_candidate=lambda c: self._say("Heard:", c.text),
        )  # fmt: skip
        self._run(generate, self._show, "Asking the LLM")

    def _show(self, made: Generation) -> None:
        self.generation = made
        self._set_busy(False)  # there is something to commit with now
        self.candidates.delete(*self.candidates.get_children())
        for place, c in enumerate(made.candidates):
            cells = (f"{c.score:+.2f}", f"{c.count}x", c.text)
            self.candidates.insert("", "end", str(place), values=cells)
        self.candidates.selection_set([c.text for c in made.candidates].index(made.text))
        self.status.set("; ".join(["Subjects, best first", *made.notes]))

    def _selected(self, _event: object) -> None:
        if self.generation and (selected := self.candidates.selection()):
            candidate = self.generation.candidates[int(selected[0])]
            self.subject.set(candidate.text)
            self.why.set(f"Why: {reasons(candidate.contributions, 'adapter')}")

    def commit(self) -> None:
        body = self.body.get("1.0", "end").strip()
        if self.generation:
            text = self.subject.get().strip(), "" if body == self.described else body
            self._run(partial(self._record, self.generation, *text), self._show_gain, "Committing")

    def _record(self, asked: Generation, subject: str, body: str) -> Learned:
        command = [self.git.program, "-C", str(self.git.root), "commit", "--quiet", "--file=-"]
        text = f"{subject}\n\n{body}\n"
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ConfigError(f"git did not commit: {(done.stderr or done.stdout).strip()}")
        choice = choose_committed(self.git, self.person, asked.id, last_commit(self.git))
        fit = self.person.fit_head(TASK, use_llm=False, progress=self._say)
        return asked.head.version, choice, fit

    def _show_gain(self, learned: Learned) -> None:
        before, choice, fit = learned
        self.gains.delete(*self.gains.get_children())
        for role in fit.roles:
            cells = [f"{r.utility:.3f} (n={r.n})" if r.n else "-" for r in role.rows]
            self.gains.insert("", "end", values=(ROLES[role.role], *cells, role.switch))
        moved = f"Your pick: head {f'v{before}' if before else 'shared'} -> v{choice.head_version}"
        self.gain.set("\n".join([moved, *(f"{ROLES[r.role]}: {r.reason}" for r in fit.roles)]))
        self._begin()
        self.status.set(f"Committed: {choice.text}")

    def close(self) -> None:
        """Stop the LLM, wait for the worker without freezing, and close everything."""
        self._closing = True
        self._stop.set()
        if not self.busy.get():  # else _wait calls again
            self._worker.shutdown()
            self.person.close()
            self.root.destroy()


if __name__ == "__main__":
    try:
        CommitWindow(tk.Tk(), Personalizer.open(create=True), Path(*sys.argv[1:2])).mainloop()
    except HydraError as err:
        sys.exit(f"error: {err}")
