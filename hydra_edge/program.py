"""How other programs start this installation of hydra-edge: by absolute path, with its folders."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra_edge.paths import expanded

NAME = "hydra-edge"
# Where the data, settings and cache are, unless we have a home of our own.
_FOLDERS = ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
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
