"""Free answers read as members of a closed set: certain, or not at all."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra_edge.tasks import number

_NOISE = re.compile(r"[\W_]+")
_WRAPPING = " \t\r\n.,:;!\"'`*()[]"


def _key(text: str) -> str:
    """Return what is left of a text without case, space and punctuation; a number is its value."""
    value = number(text.strip(_WRAPPING))
    return f"#{value:g}" if value is not None else _NOISE.sub("", text.casefold())


def _words(member: str) -> re.Pattern[str]:
    """Match a member as whole words, where no decimal point makes it part of a number."""
    return re.compile(rf"(?<![\w])(?<!\d[.,]){re.escape(member.casefold())}(?!\w|[.,]\d)")


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
    line = next(iter(answer.strip().splitlines()), "").casefold()
    named = []
    for member in sorted(members, key=len, reverse=True):
        shorter = _words(member).sub("\0", line)
        if shorter != line:
            named.append(member)
            line = shorter
    return named[0] if len(named) == 1 else None
