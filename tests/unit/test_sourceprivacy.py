"""What is new of an imported source is private where all that is kept of it is, by any door."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hydra_edge.config import Config
from hydra_edge.importers import ImportLog, read_jsonl
from hydra_edge.personalizer import Personalizer
from hydra_edge.types import Record


@pytest.fixture
def person() -> Iterator[Personalizer]:
    with Personalizer.from_records([], config=Config()) as p:
        yield p


def diary(path: Path, days: int) -> Path:
    """Write a file of so many days."""
    lines = [{"id": str(i), "input": f"what was on day {i}", "output": f"{i}"} for i in range(days)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(path: Path, *, private: bool = False) -> Iterator[Record]:
    return read_jsonl(path, ImportLog(), private=private)


def public(p: Personalizer) -> list[str]:
    return [record.output for record in p.store.records() if not record.private]


def test_new_record_of_an_all_private_file_is_private(person: Personalizer, tmp_path: Path) -> None:
    person.add(read(diary(tmp_path / "diary.jsonl", 3), private=True))
    person.add(read(diary(tmp_path / "diary.jsonl", 5)))
    assert public(person) == []


def test_new_record_is_as_it_says_where_nothing_is_to_be_inherited(
    person: Personalizer, tmp_path: Path
) -> None:
    person.add(read(diary(tmp_path / "diary.jsonl", 3), private=True))
    person.add(read(diary(tmp_path / "diary.jsonl", 5)), inherit_private=False)
    assert public(person) == ["3", "4"]


def test_each_source_of_several_is_judged_by_itself(person: Personalizer, tmp_path: Path) -> None:
    person.add(read(diary(tmp_path / "diary.jsonl", 3), private=True))
    person.add([Record("said", "aloud", source="jsonl:/elsewhere/posts.jsonl")])
    news = [
        Record("more", "posts", source="jsonl:/elsewhere/posts.jsonl"),
        *read(diary(tmp_path / "diary.jsonl", 4)),
        Record("even more", "posts, too", source="jsonl:/elsewhere/posts.jsonl"),
    ]
    person.add(news)
    assert public(person) == ["aloud", "posts", "posts, too"]


@pytest.mark.parametrize("source", ["", "add", "app:notes", "choices", "jsonl:-"])
def test_what_is_of_no_file_is_as_it_says(person: Personalizer, source: str) -> None:
    person.add(Record("told", "in secret", source=source, private=True))
    person.add(Record("told", "to all", source=source))
    assert public(person) == ["to all"]
