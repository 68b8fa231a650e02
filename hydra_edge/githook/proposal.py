"""Proposing the subject of a commit, and learning from the one it got.

Between the two, a small file in git's folder says what was proposed for which commit. The
record that is kept is the one ``import git`` would make, so importing again adds nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hydra_edge.choosing import Answered, find_answer, record_choice
from hydra_edge.errors import ConfigError
from hydra_edge.fitting import learn
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
from hydra_edge.learning import LEFT_OF_CHOICE
from hydra_edge.personalizer import Personalizer
from hydra_edge.privatefiles import write_private
from hydra_edge.turns import stoppable
from hydra_edge.types import Progress, Record

PENDING = "hydra-edge-proposal.json"
# What git says of where a message comes from: nothing yet, or a template below the subject.
_OPEN = {"", "template"}
_NO_EDITOR = ":"  # what git tells its hooks when it will start none


@dataclass(frozen=True, slots=True)
class Pending:
    """A proposal whose commit is not made yet; ``head`` is what it will be made upon."""

    generation_id: str
    head: str


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
        watched = stoppable(progress, should_stop, "Learning from the commit", LEFT_OF_CHOICE)
        learn_from_commit(repository, open_person, watched)
    elif hook == "prepare-commit-msg" and arguments:
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
    progress: Progress | None = None,
) -> bool:
    """Teach the author's head which subject the last commit got, if one was proposed for it.

    ``progress`` is told while records are embedded that never were; what it raises ends that.

    Returns
    -------
    bool
        False if there was no proposal, or the commit is another one, or another author's.
    """
    file = repository.git_dir / PENDING
    try:
        pending = Pending(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    except (ValueError, TypeError):  # cut off, or not ours
        file.unlink(missing_ok=True)
        return False
    file.unlink(missing_ok=True)
    if repository.ask("rev-parse", "--verify", "--quiet", "HEAD^1") != pending.head:
        return False
    commit = commit_of(repository.ask(*LOG, "-1"))
    mine = repository.setting("user.email")
    if not commit.subject.strip() or is_unfinished(commit):
        return False
    if mine and not is_by(commit, mine, exact=True):
        return False
    with open_person() as person:
        with person.store.together():
            answered = find_answer(person.store, pending.generation_id, None, commit.subject)
            answered = _as_proposed(answered)
            record = _record(repository, person, answered, commit)
            before = person.store.choice(answered.generation.id)
            if record is not None:
                person.add([record])
            record_id = None if record is None else record.id
            taken = record_choice(person.store, answered, before, record_id)
        learn(person.engine, taken, progress=progress)
    return True


def _as_proposed(answered: Answered) -> Answered:
    """Take a subject for the candidate it was proposed from: that one may not have been a line."""
    if answered.picked is not None:
        return answered
    lines = [one_line(candidate.text) for candidate in answered.generation.candidates]
    subject = one_line(answered.text)
    return replace(answered, picked=lines.index(subject) if subject in lines else None)


def _record(
    repository: Repository, person: Personalizer, answered: Answered, commit: Commit
) -> Record | None:
    """Return the commit as the importer reads it; without a body, the change stands in."""
    made = answered.generation
    private = is_private(repository, person.store)  # as the import was; this one is no other
    origin = Origin.of("git", repository.root, made.task, private=private)
    return to_record(commit, origin, ImportLog(), without_body=made.query)


def _replace(message: Path, text: str) -> None:
    temporary = message.with_name(message.name + ".hydra-edge")
    try:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        shutil.copymode(message, temporary)
        temporary.replace(message)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
