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
_WIDE = r"[^\S\n]{81,}"  # no layout has as many blanks in a row
_CUT = " […]"  # behind a record's input that is not shown whole
# Where a sentence ends, or a line does.
_END = r"[.!?][\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]|\S(?=[^\S\n]*\n)"
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


def _cut_lines(text: str, words: int) -> str:
    """Return the first ``words`` words of a text on the lines they are on, bounded as by ``cut``.

    Of white space there is no more than a layout needs.
    """
    lines = [line.rstrip() for line in text.strip().splitlines()]
    if len(lines) <= 1:
        return cut(text, words)
    text = re.sub(r"\n{4,}", "\n\n\n", re.sub(_WIDE, " ", "\n".join(lines)))
    last = next(islice(re.finditer(r"\S+", text), words - 1, None), None)
    text = (text[: last.end()] if last else text)[: words * _LONGEST_WORD].rstrip()
    last = next(islice(re.finditer(_UNSPACED, text), words - 1, None), None)
    return text[: last.end()] if last else text


def query_words(task: TaskSpec) -> int:
    """Return how many words of a query are put into its prompt."""
    return LONG_QUERY_WORDS if task.multiline else QUERY_WORDS


def fold(text: str, *, multiline: bool) -> str:
    """Make an answer safe to quote: one line, or lines indented behind the first."""
    if not multiline:
        limit = SHOT_WORDS * 8
        return _one_line(text, limit)[:limit]  # a word has a character
    return _indented(_to_an_end(text.strip(), SHOT_WORDS * _LONGEST_WORD))


def _to_an_end(text: str, limit: int) -> str:
    """Return a text of at most so many characters that ends with a sentence or a line.

    An LLM that is shown how a text breaks off writes one that does; and one that is shown a mark
    there, writes the mark.
    """
    if len(text) <= limit:
        return text
    text = text[:limit]
    ends = [found.end() for found in re.finditer(_END, text)]
    at = ends[-1] if ends and 2 * ends[-1] > limit else 0
    if not at:  # a word's end is better than none
        at = max(text.rfind(" "), text.rfind("\n"))
    return text[:at].rstrip() if 2 * at > limit else text


def _shown_input(text: str, *, multiline: bool) -> str:
    """Return what is shown of a record's input, marked where that is not all of it.

    Where answers have one line it is as it was measured, without.
    """
    shown = cut(text, SHOT_WORDS)
    return shown + _CUT if multiline and cut(text, SHOT_WORDS + 1) != shown else shown


def _indented(text: str) -> str:
    """Indent the further lines of a text, so that none begins as a block of a prompt does."""
    return f"\n{_INDENT}".join(text.splitlines())


class Unfolding:
    """Undo ``fold`` in an answer that arrives in pieces.

    The model took over the indentation it saw in the examples' answers if every further line with
    text in it has it; it is then removed from each. One line without proves a layout of the
    answer's own, which stays: until there is one, or the end, further lines are held back.
    """

    def __init__(self) -> None:
        self._held = ""  # what cannot be handed on yet: all from the first line's end on
        self._searched = 0  # how much of that is lines known to be indented
        self._in_first = True
        self._own = False

    def feed(self, piece: str) -> str:
        """Add a piece; return what can be handed on, all pieces together being the answer."""
        if self._own:
            return piece
        first, end, rest = piece.partition("\n") if self._in_first else ("", "", piece)
        self._in_first = self._in_first and not end
        self._held += end + rest
        if self._has_own_layout():
            self._own = True
            first, self._held = first + self._held, ""
        return first

    def finish(self) -> str:
        """Say that nothing more will come; return what was held."""
        held, self._held = self._held, ""
        return held.replace(f"\n{_INDENT}", "\n")

    def _has_own_layout(self) -> bool:
        """Tell whether a further line has text that is not indented, as far as there are lines."""
        while self._searched < len(self._held):
            start = self._searched + 1  # behind the line break
            end = self._held.find("\n", start)
            line = self._held[start:] if end < 0 else self._held[start:end]
            if not line.startswith(_INDENT) and line.strip():
                return True
            if end < 0:
                return False
            self._searched = end
        return False


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
    """Everything an LLM is told for one query; the most relevant shot comes last.

    ``examples`` are the outputs of the records chosen for it, as they are shown: how the user
    writes, also where they had no room.
    """

    task: TaskSpec
    query: str
    shots: tuple[Shot, ...] = ()
    system: str = ""
    examples: tuple[str, ...] = ()

    @property
    def record_ids(self) -> tuple[str, ...]:
        """Ids of the records shown."""
        return tuple(shot.record_id for shot in self.shots)

    @property
    def is_indented(self) -> bool:
        """Whether lines of an answer or the query are indented, as an LLM may write its own."""
        lines = self.task.multiline and "\n" in self.query
        return lines or any("\n" in shot.output for shot in self.shots)

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
        query = _indented(self.query) if task.multiline else self.query
        return "".join(blocks) + f"{task.input_label}: {query}\n{task.output_label}:"

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
        words = half[: max(half.rfind(" "), half.rfind("\n"), 0)].rstrip()
        return replace(self, query=words if len(words) > len(half) // 2 else half)

    def key(self) -> str:
        """sha256 over the whole prompt: what a paid-for pool is filed under."""
        return text_hash(self.completion_text())


def build_prompt(
    task: TaskSpec, query: str, records: Sequence[Record], *, system: str = ""
) -> Prompt:
    """Build the prompt of a query from the records chosen for it, given best first."""
    shots = tuple(
        Shot(
            r.id,
            _shown_input(r.input, multiline=task.multiline),
            fold(r.output, multiline=task.multiline),
        )
        for r in reversed(records)
    )
    asked = (_cut_lines if task.multiline else cut)(query, query_words(task))
    return Prompt(task, asked, shots, system, tuple(shot.output for shot in shots))
