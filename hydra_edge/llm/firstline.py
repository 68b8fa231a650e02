"""What a chat model wrote, read as the answer to a prompt.

A model that continues a text ends an answer of one line with that line. One that chats may say
something before it, put marks around it, or repeat its label. Only what surely is no part of the
answer is left out, and nothing the user writes so: the records chosen for the query tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hydra_edge.llm.text import AnswerText
from hydra_edge.llm.thoughts import marks_beside
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import TaskSpec

_FENCE = re.compile(r"(?:```|~~~)[\w+.-]*")
_HEADING = re.compile(r"#{1,6}\s+(?=\S)")
_FIRST_OF_LIST = re.compile(r"1([.)])\s+(?=\S)")
_PAIRS = (
    ("```", "```"), ("**", "**"), ("`", "`"), ("*", "*"), ('"', '"'), ("'", "'"),
    ("\u201c", "\u201d"), ("\u201e", "\u201c"), ("\u2018", "\u2019"), ("\u00ab", "\u00bb"),
)  # fmt: skip
# How a model begins to speak of an answer that follows.
_SPEAKS = re.compile(
    r"(?:sure|certainly|of course|ok(?:ay)?|absolutely|got it|understood|here|below|based on"
    r"|hier|gern|klar|nat\u00fcrlich|voici|bien s\u00fbr|claro|por supuesto|aqu\u00ed|ecco)\b",
    re.IGNORECASE,
)


def chat_stops(task: TaskSpec) -> tuple[str, ...]:
    """Return the strings at which a chat model's answer ends: it ends free texts by itself."""
    return () if task.kind == "text" else task.stop


def chat_answer(
    prompt: Prompt, on_text: Callable[[str], None] | None = None, *, longest: int | None = None
) -> AnswerText:
    """Return what takes in a chat model's answer to a prompt; see ``AnswerText``."""
    if prompt.task.kind == "text" and not prompt.task.multiline:
        return _Line(prompt, on_text, longest=longest)
    marks = marks_beside(prompt.examples)
    return AnswerText(chat_stops(prompt.task), on_text, longest=longest, marks=marks)


class _Line(AnswerText):
    """A growing answer of which one line is wanted; it is told of once that is known."""

    def __init__(
        self, prompt: Prompt, on_text: Callable[[str], None] | None, *, longest: int | None
    ) -> None:
        super().__init__((), None, longest=longest, marks=marks_beside(prompt.examples))
        self._label = prompt.task.output_label
        self._examples = prompt.examples
        self._on_line = on_text
        self._read = False

    def _add(self, piece: str) -> None:
        super()._add(piece)
        if self.stopped or "\n" in piece:
            self._look(whole=self.stopped)

    def finish(self) -> str:
        """Say that nothing more will come; return the answer."""
        super().finish()
        self._look(whole=True)
        return self.text

    def _look(self, *, whole: bool) -> None:
        if self._read:
            return
        line = first_line(self._raw, self._label, self._examples, whole=whole)
        if line is None:
            return
        self._raw, self._read, self.stopped = line, True, True
        if line and self._on_line is not None:
            self._on_line(line)


def first_line(text: str, label: str, examples: Sequence[str], *, whole: bool) -> str | None:
    """Return the line of an answer that is its content; None while that cannot be known.

    Parameters
    ----------
    text
        The answer as far as it is there.
    label
        What the prompt calls an answer.
    examples
        Answers of the user's: what they have, too, is left as it is.
    whole
        Whether nothing more will come.
    """
    lines = [line.strip() for line in text.split("\n")]
    rest = lines if whole else lines[:-1]
    while rest:
        line, *rest = rest
        if not line or _FENCE.fullmatch(line):
            continue
        follows = next((other for other in rest if other and not _FENCE.fullmatch(other)), None)
        following = rest[0] if rest else None
        if (follows or not whole) and _announces(line, following, label, examples):
            if follows is None:
                return None
            continue
        if first := _FIRST_OF_LIST.match(line):
            if follows is None and not whole:
                return None
            is_list = (follows or "").startswith(f"2{first[1]}")
            if is_list and not any(map(_FIRST_OF_LIST.match, examples)):
                line = line[first.end() :]
        return _bare(line, label, examples)
    return "" if whole else None


def _announces(line: str, following: str | None, label: str, examples: Sequence[str]) -> bool:
    """Tell whether a line is about the answer that follows, rather than the answer.

    Where the line that follows is not known (None), whether it may be.
    """
    if label and line.strip("*_#: \t").casefold() == label.casefold():
        return True
    if not line.rstrip("*_ ").endswith(":") or any(e.rstrip().endswith(":") for e in examples):
        return False
    speaks = _SPEAKS.match(line.lstrip("*_ "))
    if following is None or _FENCE.fullmatch(following) or speaks:
        return True
    named = label and re.search(rf"\b{re.escape(label)}\b", line, re.IGNORECASE)
    return not following and bool(named)


def _bare(line: str, label: str, examples: Sequence[str]) -> str:
    """Take off, once, what is put around an answer: a heading's mark, its label, paired marks."""
    heading = _HEADING.match(line)
    if heading and not _any_begins(examples, "#"):
        line = line[heading.end() :]
    line = _unpaired(line, examples)
    echo = re.compile(rf"[*_\s]*{re.escape(label)}[*_\s]*(?::[*_]*\s+|\uff1a[*_]*\s*)(?=\S)", re.I)
    echoed = echo.match(line) if label else None
    if echoed and not any(map(echo.match, examples)):
        line = line[echoed.end() :]
    return _unpaired(line, examples)


def _unpaired(line: str, examples: Sequence[str]) -> str:
    """Take a pair of marks off that encloses a line."""
    for opening, closing in _PAIRS:
        inner = line[len(opening) : -len(closing)]
        if not inner.strip() or not (line.startswith(opening) and line.endswith(closing)):
            continue
        if any(e.startswith(opening) and e.endswith(closing) for e in examples):
            return line
        if opening not in inner and closing not in inner:
            return inner.strip()
    return line


def _any_begins(examples: Sequence[str], with_this: str) -> bool:
    return any(example.startswith(with_this) for example in examples)
