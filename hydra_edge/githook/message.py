"""A commit message under way: is it still empty, and how a proposal is put into it."""

from __future__ import annotations

from collections.abc import Sequence

from hydra_edge.githook.repository import Repository

_KEPT_COMMENTS = {"verbatim", "whitespace"}  # cleanup modes that commit them
_SCISSORS = ">8"
_SCISSORS_LINES = 3  # the line itself and the two that explain it
_OTHERS = 4
_JOINERS = "\u200c\u200d"  # not printable alone, but some scripts and emoji are spelled with them
_PLAIN = "# Fix it\n"


def comment_mark(repository: Repository) -> str:
    """Return what begins a comment in this repository's messages."""
    mark = repository.setting("core.commentString") or repository.setting("core.commentChar")
    # "auto" takes another mark only where a line of the message itself begins with this one.
    return "#" if mark in {"", "auto"} else mark


def one_line(text: str) -> str:
    """Return an answer as a subject: one line of what can be printed; empty if nothing can.

    git refuses a message with a NUL, and a terminal would act on other control characters.
    """
    line = " ".join(text.split())
    shown = "".join(c for c in line if c.isprintable() or c in _JOINERS)
    return " ".join(shown.split()) if shown.strip(_JOINERS + " ") else ""


def spelled(text: str, encoding: str) -> str | None:
    """Spell a text as git will read it, for a message that is kept as ``surrogateescape`` UTF-8.

    Returns
    -------
    str or None
        None if ``i18n.commitEncoding`` has no way to write it, or is not known here.
    """
    try:
        data = text.encode(encoding)
        alike = _PLAIN.encode(encoding) == _PLAIN.encode()  # else git's own lines would be garbled
    except (LookupError, ValueError):
        return None
    return data.decode("utf-8", "surrogateescape") if alike and b"\0" not in data else None


def is_empty(text: str, mark: str) -> bool:
    """Return whether a message has nothing but comments."""
    for line in text.splitlines():
        if line.startswith(mark):
            if _SCISSORS in line:
                return True
        elif line.strip():
            return False
    return True


def commit_encoding(repository: Repository) -> str:
    """Return the encoding git takes a message to be in."""
    return repository.setting("i18n.commitEncoding") or "utf-8"


def may_comment(repository: Repository) -> bool:
    """Return whether comments in a message stay out of the commit."""
    return repository.setting("commit.cleanup") not in _KEPT_COMMENTS


def propose(text: str, subject: str, others: Sequence[str], mark: str, *, comments: bool) -> str:
    """Put a subject above a message, and say in a comment what it is.

    Comments go only beside git's own: where git writes none, they may well be committed.
    """
    lines = text.split("\n")
    place = next((i for i, line in enumerate(lines) if line.startswith(mark)), None)
    if comments and place is not None:
        if _SCISSORS in lines[place]:
            place += _SCISSORS_LINES
        lines[place:place] = [f"{mark} {remark}".rstrip() for remark in _remarks(others)]
    rest = "\n".join(lines)
    gap = "\n" if not rest or rest.startswith("\n") else "\n\n"
    return subject + gap + rest


def _remarks(others: Sequence[str]) -> list[str]:
    remarks = ["The subject is a proposal of hydra-edge: keep it, edit it, or delete it to abort."]
    if others:
        remarks += ["Others were:", *(f"  {other}" for other in others[:_OTHERS])]
    return [*remarks, ""]
