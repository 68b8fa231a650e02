"""How other programs start this installation of hydra-edge: by absolute path, with its folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from hydra_edge.paths import expanded

NAME = "hydra-edge"
# Where the data, settings and cache are, unless we have a home of our own; and where they are
# within the person's home if that is not said.
_FOLDERS = {
    "XDG_DATA_HOME": ".local/share", "XDG_CONFIG_HOME": ".config", "XDG_CACHE_HOME": ".cache",
}  # fmt: skip
# All that `environment` may return.
VARIABLES = ("HYDRA_EDGE_HOME", *_FOLDERS, "HYDRA_EDGE_OFFLINE")


def command(arguments: Sequence[str] = ()) -> list[str]:
    """Return hydra-edge with arguments, as a program must call it that knows no PATH of ours."""
    python = Path(sys.executable)
    for program in (Path(sys.argv[0]), python.with_name(NAME), python.with_name(NAME + ".exe")):
        if program.stem == NAME and program.is_file():
            return [str(program.absolute()), *arguments]
    if getattr(sys, "frozen", False):
        return [sys.executable, *arguments]
    return [sys.executable, "-m", "hydra_edge", *arguments]


def environment() -> dict[str, str]:
    """Return what such a program must set: where our folders are now, and whether to be offline.

    Without it, it would find another history, an empty one.
    """
    made: dict[str, str] = {}
    if home := os.environ.get("HYDRA_EDGE_HOME"):
        made["HYDRA_EDGE_HOME"] = str(expanded(home).absolute())
    else:  # one that is not absolute counts as not set
        found = {name: os.environ.get(name, "") for name in _FOLDERS}
        made |= {name: path for name, path in found.items() if Path(path).is_absolute()}
    if offline := os.environ.get("HYDRA_EDGE_OFFLINE"):
        made["HYDRA_EDGE_OFFLINE"] = offline
    return made


def moved_folders(variables: Mapping[str, str]) -> dict[str, str]:
    """Return those of an environment's variables that put our folders elsewhere than usual.

    Links in them are followed: two environments of which these are the same lead to one history.
    """
    if home := variables.get("HYDRA_EDGE_HOME"):
        return {"HYDRA_EDGE_HOME": os.path.realpath(home)}
    usual = {name: os.path.realpath(Path.home() / place) for name, place in _FOLDERS.items()}
    found = {name: os.path.realpath(variables[name]) for name in _FOLDERS if name in variables}
    return {name: path for name, path in found.items() if path != usual[name]}
