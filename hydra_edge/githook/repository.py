"""Asking git about one repository: its folders, its settings, and what is staged in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, cast

from hydra_edge.errors import ConfigError
from hydra_edge.importers import gitprogram
from hydra_edge.paths import expanded


class Repository:
    """A git repository, with a working tree unless told otherwise.

    Parameters
    ----------
    path
        The repository, or a folder inside it. None: the one whose hook we are; git then says
        by its environment which index is being committed, and that is kept.
    bare
        Whether one without a working tree will do.

    Attributes
    ----------
    program
        The git that is asked.
    root
        The top of the working tree; of a bare repository, and in a hook, the folder given.

    Raises
    ------
    ConfigError
        If there is no git, or no such repository.
    """

    def __init__(self, path: Path | None = None, *, bare: bool = False) -> None:
        program = gitprogram.program()
        if program is None:
            raise ConfigError(
                "git is not installed. Expected the git program. Install it, for example: "
                "apt install git."
            )
        self.program = program
        self._elsewhere = gitprogram.environment(keep_git=False)
        self._environment = gitprogram.environment(keep_git=path is None)
        self.root = Path.cwd() if path is None else expanded(path)
        if not self.root.is_dir():
            raise ConfigError(f"{self.root} is no folder. Expected a git repository. Check it.")
        has_files = bool(self.ask("rev-parse", "--show-toplevel"))
        if not has_files and not (bare and self.ask("rev-parse", "--git-dir")):
            raise ConfigError(
                f"{self.root} is not in a git repository with files. Expected a folder of one. "
                "Check the path, or run: git init"
            )
        if path is not None and has_files:
            self.root = self._place("--show-toplevel")

    def _command(self, *arguments: str) -> list[str]:
        return [self.program, *gitprogram.OPTIONS, *arguments]

    def ask(self, *arguments: str) -> str:
        """Return what git answers, without its last line break; empty if git refuses."""
        done = self._run(*arguments)
        if done.returncode:
            return ""
        return done.stdout.decode("utf-8", "replace").removesuffix("\n")

    def _place(self, *arguments: str) -> Path:
        """Return a folder that git names; its name need not be text."""
        done = self._run("rev-parse", *arguments)
        return self.root / os.fsdecode(done.stdout.removesuffix(b"\n"))

    def _run(
        self,
        *arguments: str,
        folder: Path | str | None = None,
        environment: Mapping[str, str] | None = None,
        told: bytes = b"",
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603 - a list of our own words, never a shell
            self._command(*arguments),
            cwd=self.root if folder is None else folder,
            env=self._environment if environment is None else environment,
            input=told,
            capture_output=True,
            check=False,
        )

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
        return self._place("--git-dir")

    @property
    def hooks_dir(self) -> Path:
        """Where git looks for hooks, ``core.hooksPath`` respected."""
        return self._place("--git-path", "hooks")

    @property
    def head(self) -> str:
        """The hash of the last commit; empty before the first."""
        return self.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")

    def recent_commits(self, count: int) -> list[str]:
        """Return the hashes of the last commits, at most ``count``."""
        return self.ask("rev-list", f"--max-count={count}", "HEAD", "--").split()

    def shares(self, folder: str) -> bool | None:
        """Return whether a folder is of this repository, too, in whichever working tree.

        None if git cannot say: the folder is gone, or of no repository, or not ours to read.
        """
        ours = self._common_dir(self.root, self._environment)
        theirs = self._common_dir(folder, self._elsewhere)
        if ours is None or theirs is None:
            return None
        try:
            return ours.samefile(theirs)
        except OSError:
            return None

    def _common_dir(self, folder: Path | str, environment: Mapping[str, str]) -> Path | None:
        """Return the folder git keeps for all working trees of a repository."""
        try:
            done = self._run(
                "rev-parse", "--git-common-dir", folder=folder, environment=environment
            )
        except (OSError, ValueError):  # no folder, or no name of one
            return None
        name = os.fsdecode(done.stdout.removesuffix(b"\n"))
        return None if done.returncode or not name else folder / Path(name)

    def has_any(self, commits: Iterable[str]) -> bool:
        """Return whether one of some hashes is of a commit in this repository; in doubt, True."""
        # A partial clone lacks what it has not fetched.
        done = self._run(
            "rev-list", "--no-walk", "--ignore-missing", "--missing=allow-any", "--stdin",
            told="".join(f"{commit}\n" for commit in commits).encode(),
        )  # fmt: skip
        return bool(done.returncode or done.stdout.strip())
