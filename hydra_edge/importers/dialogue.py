"""A conversation with an assistant: each question with the answers up to the next one.

Owns who answers whom, and what is counted as left out; the readers of exports say what was said
by whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from hydra_edge.importers.base import Origin, build_record, parse_time
from hydra_edge.importers.log import ImportLog
from hydra_edge.types import Record

USER, ASSISTANT = "user", "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """What one side said.

    ``by`` is neither side's for messages of systems and tools. ``text`` is None where it is no
    plain text. ``id`` is that of the record it would be the question of; empty if it has none.
    """

    by: str
    text: str | None
    id: str
    time: float | None


def first_time(*moments: object) -> float | None:
    """Return the first of some times that can be read; where none can, the turn is not lost."""
    for moment in moments:
        with suppress(ValueError):
            if (seconds := parse_time(moment)) is not None:
                return seconds
    return None


def records(messages: Iterable[Message | None], origin: Origin, log: ImportLog) -> Iterator[Record]:
    """Turn a conversation into records; None stands for what is missing between two messages."""
    for question, answers in _turns(messages, log):
        fields = {
            "input": question.text,
            "output": "\n\n".join(answers),
            "id": question.id,
            "time": question.time,
        }
        try:
            record = build_record(fields, origin, log)
        except ValueError as err:
            log.reject(log.done, str(err))
            continue
        if record is not None:
            yield record


def _turns(
    messages: Iterable[Message | None], log: ImportLog
) -> Iterator[tuple[Message, list[str]]]:
    """Pair each question with the answers up to the next one; count what is left out."""
    question: Message | None = None
    answers: list[str] = []
    for message in [*messages, None]:
        if message is None or message.by == USER:
            if question is not None and answers:
                yield question, answers
            elif question is not None:
                log.skip("question without an answer")
            question, answers = None, []
        if message is None:
            continue
        if message.by not in {USER, ASSISTANT}:
            log.skip("system or tool message")
        elif message.text is None:
            log.skip("message that is not plain text")
        elif not message.text.strip():
            log.skip("empty message")
        elif message.by == USER:
            question = message
        elif question is None:
            log.skip("answer to no plain question")
        else:
            answers.append(message.text)
