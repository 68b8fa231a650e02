"""How Slack writes texts and people down: made readable, as they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_MARKED = re.compile(r"<([^<>|]+)(?:\|([^<>]*))?>")
_NAMES = ("display_name", "real_name", "display_name_normalized", "real_name_normalized", "email")


def plain_text(text: str, people: Mapping[str, str]) -> str:
    """Return a text as it is shown: mentions by name, links by what they say, signs unescaped.

    Parameters
    ----------
    text
        As exports have it.
    people
        What each id is called.
    """

    def shown(match: re.Match[str]) -> str:
        target, label = match.group(1), match.group(2)
        if target[0] == "@":
            return "@" + (people.get(target[1:]) or label or target[1:])
        if target[0] == "#":
            return "#" + (label or target[1:])
        if target[0] == "!":  # <!here>, <!subteam^S1|@group>, <!date^1^{date}|a day>
            return label or "@" + target[1:].partition("^")[0]
        return label or target

    found = _MARKED.sub(shown, text)
    return found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def names_of(person: Mapping[str, Any]) -> list[str]:
    """Return what a person of users.json is called, what others see first."""
    profile = person.get("profile")
    profile = profile if isinstance(profile, dict) else {}
    found = [*(profile.get(name) for name in _NAMES), person.get("real_name"), person.get("name")]
    return [name for name in found if isinstance(name, str) and name.strip()]


def ids_of(name: str, people: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the ids that may be meant by a name or an id, with what each is called."""
    wanted = name.strip().removeprefix("@").casefold()
    found: dict[str, str] = {}
    for person in people:
        names = names_of(person)
        if person["id"] == name.strip():
            return {name.strip(): names[0] if names else ""}
        if wanted in {each.strip().casefold() for each in names}:
            found[person["id"]] = names[-1]
    return found
