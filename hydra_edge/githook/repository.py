"""Asking git about one repository: its folders, its settings, and what is staged in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import IO, cast

from hydra_edge.errors import ConfigError

# Nothing a repository's settings name is started, and what git says does not depend on them.
_OPTIONS = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotepath=off")
_QUIET = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


class Repository:
    """A git repository with a working tree.

    Parameters
    ----------
    path
        The repository, or a folder inside it. None: the one whose hook we are; git then says
        by its environment which index is being committed, and that is kept.

    Raises
    ------
    ConfigError
        If there is no git, or no repository with a working tree.
    """

    def __init__(self, path: Path | None = None) -> None:
        program = shutil.which("git")
        if program is None:
            raise ConfigError(
                "git is not installed. Expected the git program. Install it, for example: "
                "apt install git."
            )
        self._program = program
        self._environment = dict(os.environ) | _QUIET
        if path is not None:
            kept = {k: v for k, v in self._environment.items() if not k.startswith("GIT_")}
            self._environment = kept | _QUIET
        self.root = Path.cwd() if path is None else path.expanduser()
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is no folder. Expected a git repository. Check it.")
        top = self.ask("rev-parse", "--show-toplevel")
        if not top:
            raise ConfigError(
                f"{self.root} is not in a git repository with files. Expected a folder of one. "
                "Check the path, or run: git init"
            )
        if path is not None:
            self.root = Path(top)

    def _command(self, *arguments: str) -> list[str]:
        return [self._program, *_OPTIONS, *arguments]

    def ask(self, *arguments: str) -> str:
        """Return what git answers, without its last line break; empty if git refuses."""
        done = subprocess.run(  # noqa: S603 - a list of our own words, never a shell
            self._command(*arguments),
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return ""
        return done.stdout.decode("utf-8", "replace").removesuffix("\n")

    def read(self, *arguments: str, limit: int) -> str:
        """Return at most ``limit`` bytes of what git answers; git is stopped after them."""
        with subprocess.Popen(  # noqa: S603 - a list of our own words, never a shell
            self._command(*arguments),
            cwd=self.root,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            data = cast("IO[bytes]", process.stdout).read(limit)
            process.kill()
        return data.decode("utf-8", "replace")

    def setting(self, name: str) -> str:
        """Return a git setting; empty if it is not set."""
        return self.ask("config", "--get", name)

    @property
    def git_dir(self) -> Path:
        """The folder git keeps for this working tree."""
        return self.root / self.ask("rev-parse", "--git-dir")

    @property
    def hooks_dir(self) -> Path:
        """Where git looks for hooks, ``core.hooksPath`` respected."""
        return self.root / self.ask("rev-parse", "--git-path", "hooks")

    @property
    def head(self) -> str:
        """The hash of the last commit; empty before the first."""
        return self.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
