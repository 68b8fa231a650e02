"""JSON Lines: one object a line with ``input`` and ``output``, under any key names.

Refuses to interpret anything but the fields of a record; other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from hydra_edge.errors import ImportFormatError
from hydra_edge.importers.base import (
    FIELDS,
    Origin,
    build_record,
    check_columns,
    mismatch,
    numbered_lines,
    open_bytes,
    parse_json,
    said_by,
)
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import DEFAULT_TASK, Record

_EXPECTED = "JSON Lines (one object with input and output on each line)"
_ABSENT = object()


def read_jsonl(
    path: Path | TextIO,
    log: ImportLog,
    *,
    task: str = DEFAULT_TASK,
    columns: Mapping[str, str] | None = None,
    private: bool = False,
) -> Iterator[Record]:
    """Read records from JSON Lines, one line in memory at a time.

    Parameters
    ----------
    path
        A file, or a text stream such as ``sys.stdin``.
    log
        Filled while iterating; progress in bytes. A key in ``columns`` that no line has is noted
        at the end.
    task
        For lines that name none.
    columns
        Field -> key, for the keys that are not called like their field; a dotted path
        (``message.body``, ``parts.0``) reaches into nested objects and lists; ``time=""`` reads
        no times.
    private
        Marks every record private; a line can mark itself so, but not undo this.

    Yields
    ------
    Record
        In file order; ``id`` is empty where the line has none.

    Raises
    ------
    ImportFormatError
        At the first step if the source cannot be opened, or at the end if it had lines but
        not one of them was a JSON object.
    ConfigError
        If ``columns`` names an unknown field.
    """
    where = check_columns(columns)
    name = path if isinstance(path, Path) else "The input stream"
    origin = Origin.of("jsonl", path, task, private=private)
    objects = picked = 0
    never = {name for name in columns or {} if name in where}  # a line may lack what others have
    first_fault: tuple[int, str] | None = None
    with open_bytes(path, _EXPECTED, log) as stream:
        for line_number, line in numbered_lines(stream, name, _EXPECTED, log):
            if not line.strip():
                continue
            try:
                value = _parse_object(line)
                objects += 1
                fields = _pick(value, where)
                picked += 1
                never -= fields.keys()
                record = build_record(fields, origin, log)
            except ValueError as err:
                first_fault = first_fault or (line_number, str(err))
                log.reject(line_number, str(err))
                continue
            if record is not None:
                yield record
    if picked:
        log.notes += [
            f"no line has {where[name]!r} ({said_by(name)})" for name in FIELDS if name in never
        ]
    if first_fault and not objects:
        raise ImportFormatError(
            f"{name} has no line that could be read; line {first_fault[0]}: {first_fault[1]}. "
            f"Expected {_EXPECTED}. A JSON array becomes lines with: jq -c '.[]'."
        )


def _parse_object(line: bytes) -> dict[str, Any]:
    value = parse_json(line)
    if not isinstance(value, dict):
        raise mismatch("the line", value, "an object")
    return value


def _pick(value: dict[str, Any], where: Mapping[str, str]) -> dict[str, object]:
    """Find the fields in an object; ``input`` and ``output`` must be there, even if null."""
    fields = {}
    for name, key in where.items():
        found = _find(value, key)
        if found is not _ABSENT:
            fields[name] = found
        elif name in {"input", "output"}:
            raise ValueError(
                f"no {key!r}; expected keys {where['input']!r} and {where['output']!r}"
            )
    return fields


def _find(value: Any, key: str) -> object:
    if isinstance(value, dict) and key in value:  # a key may itself contain dots
        return value[key]
    for step in key.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _ABSENT
    return value
