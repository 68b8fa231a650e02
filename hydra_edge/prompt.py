"""Prompts: a query, and the records shown with it, as text for a completion or a chat model.

Records are quoted as the user's own examples, always in the user's turn, never in the system
role; their line breaks are folded so that a record cannot pose as the structure around it. Only
the closed set of a task, which names short answers of records, is part of the instruction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Record, text_hash

# How much of a text is shown, in words: small models lose the query behind long examples.
SHOT_WORDS = 60
QUERY_WORDS = 120
# Of what is answered at length, a mail or a conversation's last message, all should be seen.
LONG_QUERY_WORDS = 1500
# Where that has no room in an LLM's context, as many characters are worth asking about, some 30
# words; a context without room for them has none for an answer either.
_SHORT_QUERY = 200
_INDENT = "  "  # before the further lines of an answer that is shown
_LONGEST_WORD = 40  # characters a word may take of a cut text; guards against wordless input
# Letters of scripts that put no blanks between words: Thai, Lao, Tibetan, Burmese, Khmer, kana and
# the Chinese characters. Each takes an LLM about as many tokens as a word of other scripts.
# Compiled by the first text that needs it.
_UNSPACED = (
    r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003ffff]"
)


def cut(text: str, words: int) -> str:
    """Return the first ``words`` words of a text on one line, bounded in characters too.

    A letter of a script without blanks takes the room of a word: there are no more than ``words``.
    """
    line = _one_line(text, words)[: words * _LONGEST_WORD]
    if line.isascii():
        return line
    last = next(islice(re.finditer(_UNSPACED, line), words - 1, None), None)
    return line[: last.end()] if last else line


def _one_line(text: str, words: int) -> str:
    """Return the first ``words`` words: counted, so that white space crowds none of them out."""
    return " ".join(text.split(maxsplit=words)[:words])


def query_words(task: TaskSpec) -> int:
    """Return how many words of a query are put into its prompt."""
    return LONG_QUERY_WORDS if task.multiline else QUERY_WORDS


def fold(text: str, *, multiline: bool) -> str:
    """Make an answer safe to quote: one line, or lines indented behind the first."""
    if not multiline:
        limit = SHOT_WORDS * 8
        return _one_line(text, limit)[:limit]  # a word has a character
    lines = text.strip()[: SHOT_WORDS * _LONGEST_WORD].splitlines()
    return f"\n{_INDENT}".join(lines)


class Unfolding:
    """Undo ``fold`` in an answer that arrives in pieces, handing on each as soon as it can be.

    The first further line with text in it says whether the model took over the indentation it
    saw in the examples' answers. If so it is removed from every line that has it, else the
    answer has a layout of its own, which stays.
    """

    def __init__(self) -> None:
        self._held = ""  # what cannot be handed on yet
        self._in_line = True  # rather than at the beginning of a further line
        self._indented: bool | None = None  # None: no further line had text yet

    def feed(self, piece: str) -> str:
        """Add a piece; return what can be handed on, all pieces together being the answer."""
        self._held += piece
        if self._indented is None:
            self._look()
        if self._indented is False:
            return self._take(len(self._held))
        held, at, out = self._held, 0, []
        while at < len(held):  # by index: to copy what is left for each line would be quadratic
            if not self._in_line:
                # One character more than an indent tells it from the beginning of one.
                if self._indented is None or _INDENT.startswith(held[at : at + len(_INDENT) + 1]):
                    break
                at += len(_INDENT) if held.startswith(_INDENT, at) else 0
            end = held.find("\n", at) + 1
            self._in_line = not end
            out.append(held[at : end or len(held)])
            at = end or len(held)
        self._held = held[at:]
        return "".join(out)

    def finish(self) -> str:
        """Say that nothing more will come; return what was held."""
        self._indented = self._indented is not False
        rest = self.feed("")
        return rest + self._take(len(self._held)).removeprefix(_INDENT)

    def _look(self) -> None:
        """Find the first further line with text in it, if it is there."""
        start = self._held.find("\n") + 1 if self._in_line else 0
        rest = self._held[start:] if start or not self._in_line else ""
        text = rest.lstrip()
        if text:
            line = rest.rfind("\n", 0, len(rest) - len(text)) + 1
            self._indented = rest.startswith(_INDENT, line)

    def _take(self, size: int) -> str:
        taken, self._held = self._held[:size], self._held[size:]
        return taken


def unfold(text: str) -> str:
    """Undo in an answer the indentation that the model saw in the examples' answers."""
    unfolding = Unfolding()
    return unfolding.feed(text) + unfolding.finish()


@dataclass(frozen=True, slots=True)
class Shot:
    """One record as shown: already cut and folded."""

    record_id: str
    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Everything an LLM is told for one query; the most relevant shot comes last."""

    task: TaskSpec
    query: str
    shots: tuple[Shot, ...] = ()
    system: str = ""

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Ids of the records shown."""
        return tuple(shot.record_id for shot in self.shots)

    @property
    def head(self) -> str:
        """The part every prompt of this task shares: its KV state is worth keeping."""
        lines = [part for part in (self.system.strip(), self.task.instruction) if part]
        if self.task.labels:
            lines.append(f"{self.task.output_label} is one of: {', '.join(self.task.labels)}.")
        return "\n".join(lines) + "\n\n"

    @property
    def body(self) -> str:
        """The examples and the query, ending where the answer begins."""
        task = self.task
        blocks = [
            f"{task.input_label}: {shot.input}\n{task.output_label}: {shot.output}\n\n"
            for shot in self.shots
        ]
        return "".join(blocks) + f"{task.input_label}: {self.query}\n{task.output_label}:"

    def completion_text(self) -> str:
        """Return the prompt for a completion model, byte for byte."""
        return self.head + self.body

    def messages(self) -> list[dict[str, str]]:
        """Return the prompt for a chat model: instruction as system, all texts as user."""
        ask = (
            f"Below are my own earlier examples, then a last {self.task.input_label.lower()} "
            if self.shots
            else f"Below is one {self.task.input_label.lower()} "
        )
        ask += f"without its {self.task.output_label.lower()}. Reply with that only.\n\n"
        return [
            {"role": "system", "content": self.head.strip()},
            {"role": "user", "content": ask + self.body},
        ]

    def without_weakest(self) -> Prompt:
        """Drop the shot least worth its tokens (the first one)."""
        return replace(self, shots=self.shots[1:])

    def without_shots(self) -> Prompt:
        """Ask the same with no record shown."""
        return replace(self, shots=())

    def with_less_query(self) -> Prompt | None:
        """Ask about the first half of the query, in whole words if it has some; None if short."""
        if len(self.query) <= _SHORT_QUERY:
            return None
        half = self.query[: len(self.query) // 2]
        words = half.rpartition(" ")[0]
        return replace(self, query=words if len(words) > len(half) // 2 else half)

    def key(self) -> str:
        """sha256 over the whole prompt: what a paid-for pool is filed under."""
        return text_hash(self.completion_text())


def build_prompt(
    task: TaskSpec, query: str, records: Sequence[Record], *, system: str = ""
) -> Prompt:
    """Build the prompt of a query from the records chosen for it, given best first."""
    shots = tuple(
        Shot(r.id, cut(r.input, SHOT_WORDS), fold(r.output, multiline=task.multiline))
        for r in reversed(records)
    )
    return Prompt(task=task, query=cut(query, query_words(task)), shots=shots, system=system)
