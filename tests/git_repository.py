"""A real git repository for tests, untouched by the developer's own settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

QUIET = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let git, wherever a test runs it, see no setting and no repository of the developer's."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)


def worked_in(path: Path, monkeypatch: pytest.MonkeyPatch) -> GitRepository:
    """Make a repository and go there, as its author does."""
    quiet(monkeypatch)
    made = GitRepository(path)
    monkeypatch.chdir(made.path)
    return made


class GitRepository:
    """Runs git in a folder as one author."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        for name, value in (("name", "Ada"), ("email", "ada@example.org")):
            self.git("config", f"user.{name}", value)
        self.git("config", "commit.gpgsign", "false")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run git, whatever comes of it."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        return subprocess.run(
            ["git", *arguments], cwd=self.path, env=kept | QUIET | environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def git(self, *arguments: str, **environment: str) -> str:
        """Run git, which must succeed; return what it says."""
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, name: str, text: str) -> None:
        """Write a file and stage it."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self.git("add", "--", name)

    def subject(self) -> str:
        """Return the last commit's subject."""
        return self.git("log", "-1", "--format=%s")
