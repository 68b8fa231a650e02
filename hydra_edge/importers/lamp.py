"""LaMP question and output files: one person's profile as records.

Owns which profile fields are the input and the output of each of LaMP's tasks. Only the
profile is history: a question and its gold answer are a test, and are never imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    Origin,
    build_record,
    mismatch,
    parse_json_source,
    parse_time,
    readable,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.spelling import number
from hydra_edge.tasks import canonical_name
from hydra_edge.types import Record

_EXPECTED = "a LaMP questions file (a list of questions with id, input and profile)"
_EXPECTED_OUTPUTS = 'a LaMP outputs file ({"task": ..., "golds": [...]})'


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a task's profile items keep input and output; no output: nothing to learn."""

    name: str
    task: str
    inputs: tuple[str, ...]
    output: str | None
    hint: str = ""  # wording of its questions, where the profile's keys fit two tasks

    def fits(self, keys: set[str]) -> bool:
        """Whether profile items with these keys can be of this task."""
        return keys >= {*self.inputs, *([self.output] if self.output else ())}


# Tasks whose items have more telling keys come first.
_LAYOUTS = (
    _Layout("LaMP_2N", "news_category", ("title", "text"), "category"),
    _Layout("LaMP_2M", "movie_tag", ("description",), "tag"),
    _Layout("LaMP_3", "product_rating", ("text",), "score"),
    _Layout("LaMP_5", "paper_title", ("abstract",), "title", "following abstract"),
    _Layout("LaMP_1", "citation", ("abstract",), "title", "which reference"),
    _Layout("LaMP_6", "email_subject", ("text",), "title", "following email"),
    _Layout("LaMP_4", "news_headline", ("text",), "title", "following article"),
    _Layout("LaMP_7", "tweet", ("text",), None),
)


def read_lamp(
    questions: Path,
    outputs: Path | None,
    log: ImportLog,
    *,
    task: str | None = None,
    user: str | None = None,
    private: bool = False,
) -> Iterator[Record]:
    """Read the profile of one LaMP question, which is one person's history.

    The question itself and its gold output are not imported: they are the test. The file is
    parsed as a whole, which takes several times its size in memory.

    Parameters
    ----------
    questions
        The questions file.
    outputs
        The outputs file of the same split, read only for the name of its task. Without it
        the task is recognised from the profile's keys and the question's wording.
    log
        Filled while iterating; progress in profile items.
    task
        What the records are called instead of the built-in task's name.
    user
        The id of the question whose profile is meant; needed if the file holds several.
    private
        Marks every record private.

    Yields
    ------
    Record
        In profile order, with the item's own id and date where it has them.

    Raises
    ------
    ImportFormatError
        At the first step if a file cannot be read, the person or the task is unclear.
    """
    people = _load_questions(questions)
    question = _choose(people, user, questions)
    profile = question["profile"]
    if log.held is not None:  # of whoever else the file holds
        others = [person["profile"] for person in people.values() if person is not question]
        for item in (item for other in others for item in other if isinstance(item, dict)):
            name = item.get("id")
            if name is not None and str(name).strip():
                log.hold(str(name).strip())
            else:  # which of the records are its is not known
                log.miss("profile item without an id, of another person")
    if not profile:
        log.begin(item="profile item", unit="records", total=0)
        return
    keys = {key for item in profile if isinstance(item, dict) for key in item}
    said = _task_of(outputs) if outputs is not None else None
    layout = _recognise(said, keys, str(question.get("input", "")), task, questions)
    log.begin(item="profile item", unit="records", total=len(profile))
    origin = Origin.of("lamp", questions, task or layout.task, private=private)
    for item in profile:
        log.step()
        if layout.output is None:
            log.skip("a tweet has no input of its own")
            continue
        try:
            record = build_record(_fields(item, layout), origin, log)
        except ValueError as err:
            log.reject(log.done, str(err))
            continue
        if record is not None:
            yield record


def _load(path: Path, expected: str) -> Any:
    with readable(path, expected):
        data = path.read_bytes()
    return parse_json_source(data, path, expected)


def _load_questions(path: Path) -> dict[str, dict[str, Any]]:
    """Return the questions by id, in file order."""
    value = _load(path, _EXPECTED)
    found = {
        str(item.get("id", position)): item
        for position, item in enumerate(value if isinstance(value, list) else [])
        if isinstance(item, dict) and isinstance(item.get("profile"), list)
    }
    if not found:
        raise ImportFormatError(
            f"{path} holds no question with a profile. Expected {_EXPECTED}. "
            "Check that it is not the outputs file."
        )
    return found


def _choose(by_id: dict[str, dict[str, Any]], user: str | None, path: Path) -> dict[str, Any]:
    if user is None and len(by_id) == 1:
        return next(iter(by_id.values()))
    if user is not None and user in by_id:
        return by_id[user]
    what = "no question " + repr(user) if user is not None else "more than one person"
    first = ", ".join(repr(name)[1:-1][:40] for name in list(by_id)[:5])
    raise ImportFormatError(
        f"{path} holds {what}: it has {len(by_id)} questions, the first ids are {first}. "
        "Expected one person's history. Choose one by its id: --person ID."
    )


def _task_of(path: Path) -> str:
    value = _load(path, _EXPECTED_OUTPUTS)
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise ImportFormatError(
            f"{path} names no task. Expected {_EXPECTED_OUTPUTS}. "
            "Leave it out to recognise the task from the questions."
        )
    return str(value["task"])


def _recognise(
    said: str | None, keys: set[str], wording: str, task: str | None, path: Path
) -> _Layout:
    """Find the layout by the task's stated name, or by the profile's keys and the wording."""
    fitting = [layout for layout in _LAYOUTS if layout.fits(keys)]
    if said is not None:
        fitting = [layout for layout in fitting if _is_called(layout, said)]
    elif fitting and fitting[0].hint:
        alike = [layout for layout in fitting if layout.output == fitting[0].output]
        named = {canonical_name(task or "")}
        fitting = (
            [layout for layout in alike if layout.task in named]
            or [layout for layout in alike if layout.hint in wording.lower().replace("-", "")]
            or (alike if task else [])  # they read the same fields, and the name is given
        )
    if fitting:
        return fitting[0]
    raise ImportFormatError(
        f"{path} has profile items with the keys {', '.join(sorted(map(repr, keys))[:10])}"
        f"{f' and its task is called {said!r}' if said else ''}, which fits no task. "
        f"Expected one of {', '.join(layout.name for layout in _LAYOUTS)}. "
        "Give the outputs file, or name the task."
    )


def _is_called(layout: _Layout, said: str) -> bool:
    """Whether LaMP's name for a task is this one; ``LaMP_2`` may be either of two."""
    plain = re.sub(r"[^a-z0-9]", "", said.lower())
    name = layout.name.lower().replace("_", "")
    return plain == name or plain == name.rstrip("nm")


def _fields(item: object, layout: _Layout) -> dict[str, object]:
    if not isinstance(item, dict):
        raise mismatch("the item", item, "an object")
    needed = [*layout.inputs, str(layout.output)]
    if missing := [key for key in needed if key not in item]:
        raise ValueError(f"no {missing[0]!r}; expected {' and '.join(needed)}")
    texts = [item[key] for key in layout.inputs]
    output = item[str(layout.output)]
    if isinstance(output, str) and layout.task == "product_rating":
        score = number(output)  # "5.0" and "5" are the same rating
        output = output if score is None else score
    return {
        "input": texts[0] if len(texts) == 1 else "\n".join(str(text).strip() for text in texts),
        "output": output,
        "id": item.get("id"),
        "time": _time(item.get("date")),
    }


def _time(date: object) -> float | None:
    try:
        return parse_time(date)
    except ValueError:  # the order is lost, the record is not
        return None
