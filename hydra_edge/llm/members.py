"""Free answers read as members of a closed set: certain, or not at all."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from hydra_edge.spelling import number
from hydra_edge.utility import is_mark

_WRAPPING = " \t\r\n.,:;!\"'`*()[]"
_AND = re.compile(r"\s*&\s*")
_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d+(?:[.,]\d+)*(?!\w)")
_DASH = re.compile(r"(?<=\d)\s*[-\u2010-\u2015]\s*(?=\d)")  # from one number to another
_PART = re.compile(r"\d\s*(?:[^\W\d]+\s*)?(?:/|\bout of\b)\s*\d")
# Numbers beyond are years and the like, and fewer are a yes or no: 2019/2020 and 0/1 are no rating.
_GREATEST_SCALE, _FEWEST_STEPS = 100.0, 3
# Where the same clause says before a member that it is not meant, or right behind it.
_NOT = re.compile(
    r"(?:\b(?:not(?! (?:only|just|merely)\b)|never|neither|nor|no(?! doubt\b)|none|nothing"
    r"|cannot(?! deny\b)|without|hardly|except|far from|anything but|rather than|instead of"
    r"|nicht|kein\w*|pas|non)\b|n['\u2019]t\b)"
    r"(?:(?!\bbut\b)[^,;:.!?\u2014])*$"
)
_NOT_BEHIND = re.compile(
    r"[\"'`*\u2019\u201d)]*\s*(?:(?:is|was|would be|are)\s*)?(?:not\b|n['\u2019]t\b)"
)


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


def _with_and(text: str) -> str:
    """Return a text that says "and" wherever it has the sign."""
    return _AND.sub(" and ", text)


def _without(member: str, line: str) -> str:
    """Blot a member out of a line where it is whole words, and no part of another number."""

    def blot(found: re.Match[str]) -> str:
        beside = line[max(0, found.start() - 1) : found.start()], line[found.end() :][:1]
        return found[0] if any(c and is_mark(c) for c in beside) else "\0"

    sign = "" if number(member) is None else r"(?<!(?<!\w)-)"  # -3 is not 3
    return re.sub(rf"(?<!\w)(?<!\d[.,]){sign}{re.escape(member)}(?!\w|[.,]\d)", blot, line)


def _rated(line: str, members: dict[float, str]) -> str | None:
    """Return a line about a rating in the members' spelling; None if it leaves doubt.

    4/5 and "4 out of 5 stars" are a 4 where 5 is the greatest. 3.5 is no rating of that scale, nor
    is 8/10, and 3-4 are two.
    """
    least, greatest = min(members), max(members)
    if greatest <= _GREATEST_SCALE and len(members) >= _FEWEST_STEPS:
        scale = rf"(?:/|\bout of)\s*{re.escape(f'{greatest:g}')}(?:[.,]0+)?(?![\w/]|[.,]\d)"
        stars = r"(?:stars?|points?)"
        # "2 out of 5 scenes" is none.
        behind = rf"(?=\s*{stars}?\s*(?:$|[^\w\s]|because\b|overall\b))"
        line = re.sub(rf"(?<=\d)\s*(?:{stars}\s*)?{scale}{behind}", " ", line)
    line = _DASH.sub(" and ", line)
    found = [number(written) for written in _NUMBER.findall(line)]
    between = any(n is not None and least < n < greatest and n not in members for n in found)
    if between or (found and found[0] not in members) or _PART.search(line):
        return None

    def spelled(written: re.Match[str]) -> str:
        value = number(written[0])
        return written[0] if value is None else members.get(value, written[0])

    return _NUMBER.sub(spelled, line)


def find_member(answer: str, members: Sequence[str]) -> str | None:
    """Return the member an answer means, or None.

    It means one if it equals it but for case, space and punctuation, or if its first line
    names exactly one member as whole words (the longest counts: "dark comedy" is not "comedy")
    and does not say that it is not meant.
    """
    for spelled in (str, _with_and):
        keys = [_key(spelled(member)) for member in members]
        key = _key(spelled(answer))
        if key and keys.count(key) == 1:
            return members[keys.index(key)]
    if answer in members:
        return answer
    first = _with_and(_plain(next(iter(answer.strip().splitlines()), "")))
    values = {value: member for member in members if (value := number(member)) is not None}
    line = _rated(first, values) if values and len(values) == len(members) else first
    if line is None:
        return None
    named = []
    for member in sorted(members, key=len, reverse=True):
        shorter = _without(_with_and(_plain(member)), line)
        if shorter != line:
            named.append(member)
            line = shorter
    around = line.split("\0")
    denied = any(map(_NOT.search, around[:-1])) or any(map(_NOT_BEHIND.match, around[1:]))
    if len(named) != 1 or denied:
        return None
    return named[0]
