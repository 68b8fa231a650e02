"""An author whose messages the hook begins, and what git calls the hook with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from git_repository import GitRepository, worked_in

from hydra_edge import Personalizer, Record
from hydra_edge.config import Config
from hydra_edge.githook.proposal import PENDING, be_hook
from hydra_edge.prompt import Prompt

HINTS = "\n# Please enter the commit message for your changes.\n#\n# On branch main\n"
PARSER = '''\
def read_header(data):
    """Read the header, which may be empty."""
    return data[:4]
'''


def subjects(_prompt: Prompt, n: int) -> list[str]:
    """Answer with subjects for a commit of that function."""
    return ["Read an empty header", "Guard the header"][:n]


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitRepository:
    return worked_in(tmp_path / "repo", monkeypatch)


@pytest.fixture
def llm(scripted):
    return scripted(subjects)


@pytest.fixture
def person(hash_encoder, llm) -> Iterator[Personalizer]:
    """Give one who has committed before."""
    records = [
        Record("the parser reads past the end", "Fix empty files", "commit_subject", "r1", 1.6e9),
        Record("the cache is dropped at start", "Drop the cache", "commit_subject", "r2", 1.61e9),
    ]
    with Personalizer.from_records(
        records, llm=llm, encoder=hash_encoder, config=Config(candidates=2)
    ) as person:
        yield person


class Kept:
    """Opens the same personalizer again and again, and leaves it open."""

    def __init__(self, person: Personalizer) -> None:
        self.person = person
        self.opened = 0

    def __call__(self) -> "Kept":
        self.opened += 1
        return self

    def __enter__(self) -> Personalizer:
        return self.person

    def __exit__(self, *_: object) -> None:
        pass


def never() -> bool:
    """Say that there is time."""
    return False


def be_prepare(repo: GitRepository, person: Personalizer, source: str = "") -> bool | None:
    """Be the hook before the message is edited; say whether something was proposed."""
    opened = Kept(person)
    arguments = [".git/COMMIT_EDITMSG", *([source] if source else [])]
    be_hook(
        "prepare-commit-msg", arguments, task="commit_subject", open_person=opened,
        should_stop=never,
    )  # fmt: skip
    return (repo.path / ".git" / PENDING).exists() or None


def commit(
    repo: GitRepository, person: Personalizer, text: str | None = None, *options: str
) -> str:
    """Propose, then commit as the author leaves the message; return what was proposed."""
    message = repo.path / ".git" / "COMMIT_EDITMSG"
    message.write_text(HINTS)
    be_prepare(repo, person)
    proposed = message.read_text().split("\n")[0]
    final = text if text is not None else message.read_text()
    message.write_text(final)
    repo.git("commit", "-q", "--cleanup=strip", "-F", str(message), *options)
    return proposed
