"""What a record must be to join a history, whichever door it comes through."""

from __future__ import annotations

from dataclasses import replace

from hydra_edge.errors import ConfigError
from hydra_edge.tasks import canonical_name
from hydra_edge.types import DEFAULT_TASK, Record

_MOMENTS = (-62135596800.0, 253402300799.0)  # the years 1 to 9999


def checked(record: Record) -> Record:
    """Return a record if it can be one of a history, under its task's one spelling.

    Raises
    ------
    ConfigError
        If its input or output is empty, its time is no moment, or a field is of another type.
    """
    if not isinstance(record, Record):
        raise ConfigError(f"A record cannot be added: got {record!r:.80}; expected a Record.")
    for name in ("input", "output", "task", "id", "source"):
        text = getattr(record, name)
        if not isinstance(text, str) or (name in ("input", "output") and not text.strip()):
            raise ConfigError(
                f"A record cannot be added: its {name} is {text!r:.80}; expected text"
                f"{' that is not empty' if name in ('input', 'output') else ''}. Leave it out."
            )
    moment = record.time
    known = isinstance(moment, int | float) and not isinstance(moment, bool)
    if moment is not None and not (known and _MOMENTS[0] <= moment <= _MOMENTS[1]):
        raise ConfigError(
            f"A record cannot be added: its time is {moment!r:.80}; expected unix seconds or None. "
            "Convert it (datetime.timestamp)."
        )
    if not isinstance(record.private, bool):
        raise ConfigError(
            f"A record cannot be added: its private is {record.private!r:.80}; expected True or "
            "False. Say which it is."
        )
    task = canonical_name(record.task) or DEFAULT_TASK
    return record if task == record.task else replace(record, task=task)
