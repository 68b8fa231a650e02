"""Globs that leave notes and folders out of what is read: a part of what ``.gitignore`` knows."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase

from hydra_edge.errors import ConfigError

_ANY_DEPTH = "**"


class Globs:
    """Tells which paths below a folder match one of several globs.

    One without ``/`` matches a name at any depth, one with it a path from the folder on; what is
    in a folder that matches is never asked for. ``*`` and ``?`` stop at ``/``, a part that is
    ``**`` stands for any number of folders, ``[ab]`` for one of some letters. A ``/`` at the end
    means folders only. Case counts; how accents are spelled does not.

    Raises
    ------
    ConfigError
        If a glob is empty.
    """

    def __init__(self, globs: Sequence[str]) -> None:
        # One by itself is no list of its letters, of which * would leave everything out.
        self._parts = {
            glob: _parts(glob) for glob in ([globs] if isinstance(globs, str) else globs)
        }
        self._used: set[str] = set()

    def match(self, path: str, *, folder: bool) -> bool:
        """Tell whether the path of a note, or a folder, is left out by any."""
        names = unicodedata.normalize("NFC", path).split("/")
        found = {
            glob
            for glob, parts in self._parts.items()
            if (folder or not glob.endswith("/")) and _fit(names, parts)
        }
        self._used |= found
        return bool(found)

    @property
    def unused(self) -> list[str]:
        """Those that have matched nothing so far."""
        return [glob for glob in self._parts if glob not in self._used]


def _parts(glob: str) -> list[str]:
    parts = unicodedata.normalize("NFC", glob).removeprefix("./").rstrip("/").split("/")
    if not any(parts):
        raise ConfigError(
            f"--exclude is {glob!r:.80}; expected a glob of notes or folders, such as "
            "'templates/*' or '*.draft.md'. Leave it out to read all."
        )
    if len(parts) == 1:
        return [_ANY_DEPTH, *parts]
    return parts[1:] if parts[0] == "" else parts


def _fit(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Tell whether the names of a path fit the parts of a glob, one by one."""
    if not parts:
        return not names
    head, rest = parts[0], parts[1:]
    if head == _ANY_DEPTH:
        return any(_fit(names[skipped:], rest) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], head) and _fit(names[1:], rest)
