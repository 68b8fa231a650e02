"""Proposing the subject of a commit, and learning from the one it got.

Between the two, a small file in git's folder says what was proposed for which commit; another
one says which commit that became, until its lesson has come to an end. The record that is kept is
the one ``import git`` would make, so importing again adds nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hydra_edge.errors import ConfigError, HydraError
from hydra_edge.githook.description import describe_staged
from hydra_edge.githook.message import (
    comment_mark,
    commit_encoding,
    is_empty,
    may_comment,
    one_line,
    propose,
    spelled,
)
from hydra_edge.githook.privacy import is_private
from hydra_edge.githook.repository import Repository
from hydra_edge.importers import ImportLog
from hydra_edge.importers.base import Origin
from hydra_edge.importers.git import LOG, Commit, commit_of, is_by, is_unfinished, to_record
from hydra_edge.personalizer import Personalizer
from hydra_edge.privatefiles import replacing, write_private
from hydra_edge.store import LoggedGeneration, StoredChoice
from hydra_edge.types import ChoiceResult, Progress, Record

PENDING = "hydra-edge-proposal.json"
COMMITTED = "hydra-edge-committed.json"
# What git says of where a message comes from: nothing yet, or a template below the subject.
_OPEN = {"", "template"}
_NO_EDITOR = ":"  # what git tells its hooks when it will start none


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposal; ``head`` is what its commit is made upon, ``commit`` that one, empty before.

    ``stored`` is whether the choice is, and only its lesson was cut off.
    """

    generation_id: str
    head: str
    commit: str = ""
    stored: bool = False


def be_hook(
    hook: str,
    arguments: Sequence[str],
    *,
    task: str,
    open_person: Callable[[], Personalizer],
    should_stop: Callable[[], bool],
    progress: Progress | None = None,
) -> None:
    """Do what one of git's hooks is there for, in the repository git is at.

    ``progress`` is told while records are embedded that never were.

    Raises
    ------
    HydraError
        If nothing came of it; the caller must not let that stop git.
    """
    repository = Repository()
    if hook == "post-commit":
        learn_from_commit(repository, open_person, should_stop, progress)
    elif hook == "prepare-commit-msg" and arguments:
        _learn_late(repository, open_person, should_stop, progress)
        message, source = repository.root / arguments[0], (*arguments, "")[1]
        if wants_proposal(repository, message, source):
            with open_person() as person:
                propose_subject(
                    repository, person, message, source, task=task, should_stop=should_stop,
                    progress=progress,
                )  # fmt: skip
    else:
        raise ConfigError(
            f"No hook {hook!r} with {len(arguments)} arguments; expected prepare-commit-msg with "
            "a file, or post-commit. Run: hydra-edge git-hook install"
        )


def wants_proposal(repository: Repository, message: Path, source: str) -> bool:
    """Return whether a message is the author's to begin; forgets an earlier proposal.

    No merge, no amended or squashed commit, no message given by ``-m``, ``-F`` or ``-C``, and
    nothing that is committed without an editor: what nobody sees, nobody chose.
    """
    (repository.git_dir / PENDING).unlink(missing_ok=True)
    if source not in _OPEN or os.environ.get("GIT_EDITOR") == _NO_EDITOR:
        return False
    text = message.read_text(encoding="utf-8", errors="replace")
    return source == "template" or is_empty(text, comment_mark(repository))


def propose_subject(
    repository: Repository,
    person: Personalizer,
    message: Path,
    source: str,
    *,
    task: str,
    should_stop: Callable[[], bool],
    progress: Progress | None = None,
) -> str | None:
    """Write a subject for what is staged into a message.

    Returns
    -------
    str or None
        The subject; None if nothing is staged, or no answer can be one.
    """
    query = describe_staged(repository)
    if not query:
        return None
    made = person.generate(query, task=task, should_stop=should_stop, progress=progress)
    lines = dict.fromkeys(
        one_line(text) for text in (made.text, *(c.text for c in made.candidates))
    )
    subject, *others = [line for line in lines if line] or [""]
    mark, encoding = comment_mark(repository), commit_encoding(repository)
    written = spelled(subject, encoding)
    if not written or subject.startswith(mark):  # git would take it for a comment
        return None
    text = message.read_bytes().decode("utf-8", "surrogateescape")  # each byte stays what it is
    comments = source == "" and may_comment(repository)
    remarks = [line for other in others if (line := spelled(other, encoding))]
    _replace(message, propose(text, written, remarks, mark, comments=comments))
    if person.config.log:
        pending = Pending(made.id, repository.head)
        write_private(repository.git_dir / PENDING, json.dumps(asdict(pending)))
    return subject


def learn_from_commit(
    repository: Repository,
    open_person: Callable[[], Personalizer],
    should_stop: Callable[[], bool] | None = None,
    progress: Progress | None = None,
) -> bool:
    """Teach the author's head which subject the last commit got, if one was proposed for it.

    ``progress`` is told while records are embedded that never were; ``should_stop`` ends that.
    If it comes to no end, the hook before the next commit tries once more.

    Returns
    -------
    bool
        False if there was no proposal, or the commit is another one, or another author's.
    """
    pending, committed = repository.git_dir / PENDING, repository.git_dir / COMMITTED
    made = _read(pending)
    if made is not None:
        made = replace(made, commit=repository.head)
        _note(committed, made)
    pending.unlink(missing_ok=True)
    learned = _learn(repository, made, open_person, should_stop, progress, late=False)
    committed.unlink(missing_ok=True)
    return learned


def _learn_late(
    repository: Repository,
    open_person: Callable[[], Personalizer],
    should_stop: Callable[[], bool],
    progress: Progress | None,
) -> None:
    """Learn from the commit before if the hook after it came to no end; that it fails was told.

    Only the hook after a commit sees that it is the one: another one may be here by now.
    """
    committed = repository.git_dir / COMMITTED
    made = _read(committed)
    committed.unlink(missing_ok=True)  # first: what ends this one, too, ends no other proposal
    with suppress(HydraError):
        _learn(repository, made, open_person, should_stop, progress, late=True)


def _note(file: Path, made: Pending) -> None:
    with suppress(OSError):  # a full disk, say: then there is this one try
        write_private(file, json.dumps(asdict(made)))


def _read(file: Path) -> Pending | None:
    try:
        return Pending(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):  # none there, cut off, or not ours
        return None


def _learn(
    repository: Repository,
    made: Pending | None,
    open_person: Callable[[], Personalizer],
    should_stop: Callable[[], bool] | None,
    progress: Progress | None,
    *,
    late: bool,
) -> bool:
    if made is None or not made.commit:
        return False
    if repository.ask("rev-parse", "--verify", "--quiet", "HEAD^1") != made.head:
        return False
    commit = last_commit(repository)
    if commit.sha != made.commit or not commit.subject.strip() or is_unfinished(commit):
        return False
    mine = repository.setting("user.email")
    if mine and not is_by(commit, mine, exact=True):
        return False
    with open_person() as person:
        if late and _is_settled(person.store.choice(made.generation_id), made, commit):
            return False

        def storing() -> None:
            if not late:  # else the note is gone
                _note(repository.git_dir / COMMITTED, replace(made, stored=True))

        choose_committed(
            repository, person, made.generation_id, commit,
            progress=progress, should_stop=should_stop, on_store=storing,
        )  # fmt: skip
    return True


def _is_settled(choice: StoredChoice | None, made: Pending, commit: Commit) -> bool:
    """Tell whether a choice whose lesson was cut off was taken back, forgotten or changed since."""
    if choice is None:
        return made.stored
    return choice.text != commit.subject or choice.record_id is None


def last_commit(repository: Repository) -> Commit:
    """Return the commit that was made last."""
    return commit_of(repository.ask(*LOG, "-1"))


def choose_committed(
    repository: Repository,
    person: Personalizer,
    generation_id: str,
    commit: Commit,
    *,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_store: Callable[[], None] | None = None,
) -> ChoiceResult:
    """Teach a head which subject a commit got, and keep the commit as the importer reads it.

    Without a body, what was asked for stands in. ``on_store`` is called just before the choice is
    stored.
    """

    def record_of(made: LoggedGeneration) -> Record | None:
        if on_store is not None:
            on_store()
        private = is_private(repository, person.store)  # as the import was; this one is no other
        origin = Origin.of("git", repository.root, made.task, private=private)
        return to_record(commit, origin, ImportLog(), without_body=made.query)

    return person.choose_as(
        record_of, generation_id=generation_id, text=commit.subject,
        pick=_pick(person.store.generation(generation_id), commit.subject),
        progress=progress, should_stop=should_stop,
    )  # fmt: skip


def _pick(made: LoggedGeneration | None, subject: str) -> int | None:
    """Return the number of the candidate a subject was proposed from, which may be no line."""
    lines = [one_line(candidate.text) for candidate in made.candidates] if made else []
    line = one_line(subject)
    return lines.index(line) + 1 if line in lines else None


def _replace(message: Path, text: str) -> None:
    with replacing(message, like=message) as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))
