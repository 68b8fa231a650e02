"""The user's own git, run so that a repository decides neither which program nor what it starts.

Owns where git is looked for, and the options and environment that every question to it gets: no
pager, no monitor, no network, no waiting for a password. Which repository is asked and what an
answer means is the caller's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# A repository's config may name programs to run, and how names are shown; these win over it.
OPTIONS = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotepath=off")
_QUIET = {
    "LC_ALL": "C",
    "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch what it lacks
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}


def program() -> str | None:
    """Return where git is, or None if it is not installed.

    Only whole paths of ``PATH`` are searched: the current folder, where Windows would look
    first, is often the repository, which may hold a git of its own.
    """
    name = "git.exe" if sys.platform == "win32" else "git"
    for folder in map(Path, os.get_exec_path()):
        file = folder / name
        if folder.is_absolute() and os.access(file, os.X_OK) and file.is_file():
            return str(file)
    return None


def environment(*, keep_git: bool) -> dict[str, str]:
    """Return our environment, made quiet.

    ``keep_git`` keeps ``GIT_*``, by which git tells its hooks what is being committed; anybody
    else's could point it to another repository, or at programs.
    """
    kept = {k: v for k, v in os.environ.items() if keep_git or not k.startswith("GIT_")}
    return kept | _QUIET
