"""How other programs start this installation of hydra-edge: by absolute path, with its home."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

NAME = "hydra-edge"


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
    """Return what such a program must set: the home that is in force now, if one is set."""
    home = os.environ.get("HYDRA_EDGE_HOME")
    return {"HYDRA_EDGE_HOME": str(Path(home).expanduser().absolute())} if home else {}
