"""Generated users for the tests of measuring: habits an LLM cannot know without their history."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.datasets import TaskData, draw_tasks, read_files
from export.data import UserHistory
from hydra_edge.prompt import Prompt
from hydra_edge.store import Store
from hydra_edge.types import Record

TOPICS = ("harbour", "meadow", "furnace", "library")
LABELS = ("amber", "blue", "crimson", "dun")
QUERIES = 3  # of each user


def label_rows(user: int, n: int, task: str = "colour_of_day") -> list[dict[str, object]]:
    """Make a user who has a label of their own for every topic."""
    return [
        {
            "user": f"u{user}", "id": f"u{user}-{i}", "seq": i, "time": None, "task": task,
            "input": f"a walk to the {TOPICS[(i * i + i // 3) % 4]} number {i} of {user}",
            "output": LABELS[((i * i + i // 3) % 4 + user) % 4],
        }
        for i in range(n)
    ]  # fmt: skip


def text_rows(user: int, n: int, task: str = "paper_title") -> list[dict[str, object]]:
    """Make a user who writes titles in a form of their own."""
    form = ("on the {}", "{}: a study", "Towards {} number one")[user % 3]
    return [
        {
            "user": f"t{user}", "id": f"t{user}-{i}", "seq": i, "time": None, "task": task,
            "input": f"text number {i} about the {TOPICS[i % 4]}",
            "output": form.format(TOPICS[i % 4]),
        }
        for i in range(n)
    ]  # fmt: skip


def write(path: Path, *users: list[dict[str, object]]) -> Path:
    """Write users in the data sets' format."""
    path.write_text("\n".join(json.dumps(row) for user in users for row in user) + "\n")
    return path


def data_of(tmp_path: Path, *users: list[dict[str, object]]) -> TaskData:
    """Read users of one task back from a file, as they are measured."""
    read = read_files([write(tmp_path / "a.jsonl", *users)])
    (data,) = draw_tasks(read, users=len(users), queries=QUERIES, seed=0, specs={})
    return data


def of_rows(rows: list[dict[str, object]]) -> UserHistory:
    """Make a user's history of their rows, without a file."""
    records = tuple(
        Record(str(r["input"]), str(r["output"]), str(r["task"]), str(r["id"]), float(i))
        for i, r in enumerate(rows)
    )
    return UserHistory(str(rows[0]["user"]), str(rows[0]["task"]), records)


@pytest.fixture
def labels(tmp_path: Path) -> TaskData:
    return data_of(tmp_path, *(label_rows(i, 26) for i in range(3)))


def answer(prompt: Prompt, n: int) -> list[str]:
    """Answer as a weak model does: the last example's output first, then anything else."""
    if prompt.task.name == "profile":
        return ["Likes to be brief."] * n
    shown = [shot.output for shot in reversed(prompt.shots)]
    others = list(prompt.task.labels) or [f"about {topic}" for topic in TOPICS]
    pool = [*shown, *others] if shown else others
    return [pool[i % len(pool)] for i in range(n)]


@pytest.fixture
def llm(scripted):
    return scripted(answer)


@contextmanager
def stores_closed() -> Iterator[None]:
    """Close the stores of the users fitted meanwhile, as only a run that ends well does."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as opened:
        in_memory = SimpleNamespace(in_memory=lambda: opened.enter_context(Store.in_memory()))
        patch.setattr("bench.run.Store", in_memory)
        yield
