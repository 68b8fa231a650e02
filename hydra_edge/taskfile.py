"""A user's own tasks, each read from a TOML file whose keys are the fields of ``TaskSpec``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra_edge.closedset import answer_key
from hydra_edge.errors import ConfigError
from hydra_edge.privatefiles import write_private
from hydra_edge.tasks import BUILTIN, LONG_ANSWER, CustomTasks, TaskSpec, canonical_name
from hydra_edge.types import DEFAULT_TASK


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(
            f"Task file {path} cannot be read: {err}. Expected TOML. Correct or remove it."
        ) from err


def _check_labels(labels: Sequence[str], kind: str, path: Path) -> None:
    """Refuse an answer set that names nothing, or one answer twice."""
    seen: dict[str | float, str] = {}
    for label in labels:
        key = answer_key(label, "rating" if kind == "rating" else "label")
        if key == "":
            raise ConfigError(
                f"Task file {path}: got an empty label among {list(labels)}; expected text in "
                "each. Take it out."
            )
        if key in seen:
            raise ConfigError(
                f"Task file {path}: got the label {label!r} after {seen[key]!r}, which is the "
                "same answer; expected each once. Take one out."
            )
        seen[key] = label


def _task_of(raw: dict[str, Any], path: Path) -> TaskSpec:
    """Return the spec a task file describes."""
    raw = {"name": path.stem} | raw
    expected = {f: type(getattr(BUILTIN[DEFAULT_TASK], f)) for f in TaskSpec.__dataclass_fields__}
    expected["labels"] = list
    for key, value in raw.items():
        if key not in expected or not isinstance(value, expected[key]):
            raise ConfigError(
                f"Task file {path}: {key} = {value!r} is not understood. Expected keys: "
                + ", ".join(f"{k} ({t.__name__})" for k, t in expected.items())
            )
    raw["labels"] = tuple(str(label) for label in raw.get("labels", ()))
    raw["name"] = canonical_name(raw["name"])
    _check_labels(raw["labels"], raw.get("kind", "text"), path)
    if raw.get("multiline"):
        raw.setdefault("max_tokens", LONG_ANSWER)
    return TaskSpec(**raw)


def read_task_file(path: Path) -> TaskSpec:
    """Read one task spec from TOML; its keys are the fields of ``TaskSpec``.

    Raises
    ------
    ConfigError
        If the file is not TOML, a key is unknown or of the wrong type, or a label is empty or
        there twice.
    """
    return _task_of(_read_toml(path), path)


def task_file(folder: Path, name: str) -> Path | None:
    """Return the file that describes a task, usable or not; None if there is none."""
    found = None
    for path in sorted(folder.glob("*.toml")):
        try:
            named = _read_toml(path).get("name", path.stem)
        except ConfigError:
            named = path.stem
        if canonical_name(named if isinstance(named, str) else path.stem) == name:
            found = path  # of several the last is in force
    return found


def file_beside(path: Path, name: str) -> Path:
    """Return where a task file stands once its task has another name.

    Raises
    ------
    ConfigError
        If the name cannot be a file's.
    """
    if set("/\\:") & set(name) or name.startswith("."):
        raise ConfigError(
            f"The task file {path} cannot be called {name + '.toml'!r}: got a name with a "
            "separator; expected a plain one. Choose another name for the task."
        )
    return path.with_name(f"{name}.toml")


def read_task_text(path: Path) -> str:
    """Return a task file as it stands.

    Raises
    ------
    ConfigError
        If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as err:
        raise ConfigError(
            f"Cannot read {path}: {err.strerror or err}. Expected a task file. Run this again."
        ) from err


def with_name(text: str, name: str) -> str:
    """Return the text of a task file with another name, where it says one."""
    import tomlkit

    document = tomlkit.parse(text)
    if "name" in document:
        document["name"] = name
    return tomlkit.dumps(document)


def write_task_text(path: Path, text: str) -> None:
    """Write a task file, all of it or nothing.

    Raises
    ------
    ConfigError
        If it cannot be written.
    """
    try:
        write_private(path, text)
    except OSError as err:
        raise ConfigError(
            f"Cannot write {path}: {err.strerror or err}. Expected a folder you may write to."
        ) from err


def read_task_dir(folder: Path) -> CustomTasks:
    """Read every ``*.toml`` of a folder (which need not exist), by task name.

    A file that cannot be used is kept as ``broken`` under its task's name: that of the file
    where it does not tell. ``find_task`` raises it for that task, and for no other.
    """
    specs: dict[str, TaskSpec] = {}
    broken: dict[str, ConfigError] = {}
    unlimited: set[str] = set()
    for path in sorted(folder.glob("*.toml")):
        name: object = path.stem
        try:
            raw = _read_toml(path)
            name = raw.get("name", name)
            spec = _task_of(raw, path)
        except ConfigError as err:
            broken[canonical_name(name if isinstance(name, str) else path.stem)] = err
        else:
            specs[spec.name] = spec
            # Of several files the last is in force.
            (unlimited.discard if "max_tokens" in raw else unlimited.add)(spec.name)
    return CustomTasks(specs, broken, unlimited)
