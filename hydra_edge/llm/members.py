"""Free answers read as members of a closed set: certain, or not at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from hydra_edge.spelling import number
from hydra_edge.utility import is_mark

_WRAPPING = " \t\r\n.,:;!\"'`*()[]"


def _plain(text: str) -> str:
    """Return a text without what is only another way to write it: case, accents apart, minus."""
    return unicodedata.normalize("NFC", text).casefold().replace("\N{MINUS SIGN}", "-")


def _key(text: str) -> str:
    """Return what is left of a text without case, space and punctuation; a number is its value."""
    plain = _plain(text)
    value = number(plain.strip(_WRAPPING))
    if value is not None:
        return f"#{value:g}"
    kept, last = [], False
    for letter in plain:
        last = letter.isalnum() or (last and is_mark(letter))
        if last:
            kept.append(letter)
    return "".join(kept)


def _without(member: str, line: str) -> str:
    """Blot a member out of a line where it is whole words, and no part of another number."""

    def blot(found: re.Match[str]) -> str:
        beside = line[max(0, found.start() - 1) : found.start()], line[found.end() :][:1]
        return found[0] if any(c and is_mark(c) for c in beside) else "\0"

    sign = "" if number(member) is None else r"(?<!(?<!\w)-)"  # -3 is not 3
    return re.sub(rf"(?<!\w)(?<!\d[.,]){sign}{re.escape(member)}(?!\w|[.,]\d)", blot, line)


def find_member(answer: str, members: Sequence[str]) -> str | None:
    """Return the member an answer means, or None.

    It means one if it equals it but for case, space and punctuation, or if its first line
    names exactly one member as whole words (the longest counts: "dark comedy" is not "comedy").
    """
    keys = [_key(member) for member in members]
    key = _key(answer)
    if key and keys.count(key) == 1:
        return members[keys.index(key)]
    if answer in members:
        return answer
    line = _plain(next(iter(answer.strip().splitlines()), ""))
    named = []
    for member in sorted(members, key=len, reverse=True):
        shorter = _without(_plain(member), line)
        if shorter != line:
            named.append(member)
            line = shorter
    return named[0] if len(named) == 1 else None
