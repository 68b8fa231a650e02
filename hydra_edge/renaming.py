"""Giving a task another name: its records, what was learned from them, and its task file.

Whoever calls sees to it that no other thread fits, or is at the engine, meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hydra_edge.engine import Engine
from hydra_edge.errors import ConfigError, StoreError, UnknownTaskError
from hydra_edge.paths import Paths
from hydra_edge.privatefiles import replacing
from hydra_edge.records import name_fault
from hydra_edge.resources import Resources
from hydra_edge.store import Store
from hydra_edge.taskfile import (
    file_beside,
    read_task_dir,
    read_task_text,
    task_file,
    with_name,
    write_task_text,
)
from hydra_edge.tasks import BUILTIN, TaskSpec, canonical_name, fits
from hydra_edge.types import RenameReceipt, Role

_ROLES: tuple[Role, ...] = ("reranker", "adapter")
_SHOWN = 5  # labels that an error names, at most


def rename_task(
    resources: Resources, old: str, new: str, *, merge: bool = False, dry_run: bool = False
) -> RenameReceipt:
    """Give a task another name; see ``Personalizer.rename_task``.

    The file that describes it is copied first and removed last: whenever this ends, every record
    is of a task that is described, and to do it again finishes it. A file that is called as the
    task is to be says the new name first, and the old one again if this fails.
    """
    store, engine = resources.store, resources.engine
    old, new = canonical_name(old), _new_name(old, new)
    files = _Files.of(resources, old, new)
    receipt = None
    try:
        with store.together():
            _check_names(store, old, new, files, merge=merge)
            _check_answers(store, old, new, files, engine.declared(new))
            if dry_run:
                return _preview(store, old, new)
            files.copy()
            receipt = store.rename_task(old, new, lambda name: _knows(engine, name))
    except BaseException:
        # Ctrl-C may come when all of it is stored.
        if receipt is not None and not _is_known(store, old):
            files.remove()
        else:
            files.undo()
        raise
    files.remove()
    return replace(
        receipt,
        task_file=None if files.target is None else str(files.target),
        kept_file=None if files.kept is None else str(files.kept),
    )


def _new_name(old: str, new: str) -> str:
    name = canonical_name(new)
    fault = name_fault(name) if name else "is empty"
    if not fault and name == canonical_name(old):
        fault = f"is what {old} is called already"
    if fault:
        raise ConfigError(f"The new name {fault}. Give the task a short name of its own.")
    return name


def _check_names(store: Store, old: str, new: str, files: _Files, *, merge: bool) -> None:
    """Refuse what is not there, and a name that is taken."""
    counts = store.tasks()
    is_known = _is_known(store, old)
    if not (is_known or files.source):
        raise UnknownTaskError(
            f"There is nothing of a task {old!r:.80} to rename. Tasks with records: "
            f"{', '.join(counts) or 'none yet'}."
        )
    is_left_over = files.is_there and not is_known  # by a renaming that was interrupted
    if counts.get(new) and not merge and not is_left_over:
        raise ConfigError(
            f"{old} was not renamed: got {new}, which has {counts[new]} records already; expected "
            "a name that is free. Choose another one, or make one task of both with --merge "
            "(merge=True)."
        )


def _is_known(store: Store, task: str) -> bool:
    return bool(
        store.count(task)
        or store.generation_count(task)
        or store.choices(task)
        or store.pools(task)
        or store.heads(task)
    )


def _check_answers(
    store: Store, old: str, new: str, files: _Files, declared: TaskSpec | None
) -> None:
    """Refuse a name where the answers of either task would be described as others than they are.

    A file that is moved describes those of the new name, too; else ``declared`` those of the old.
    """
    if files.is_there:
        return
    spec, task, other = (files.moved, new, old) if files.moved else (declared, old, new)
    if spec is None or fits(spec, store.outputs(task)):
        return
    labels = ", ".join(spec.labels[:_SHOWN]) + (", ..." if len(spec.labels) > _SHOWN else "")
    raise ConfigError(
        f"{old} was not renamed: got answers of {task} of which too few are one of {labels}, as "
        f"those of {other} are; expected nearly all. Choose another name."
    )


def _knows(engine: Engine, task: str) -> bool:
    """Tell whether a head learned under this name would be another under any other name."""
    manifest, maps = engine.bundle.manifest, engine.bundle.maps
    return (
        task in BUILTIN
        or task in manifest.closed_sets
        or any(f"{role}.prior.{task}.mean" in maps for role in _ROLES)
    )


def _preview(store: Store, old: str, new: str) -> RenameReceipt:
    return RenameReceipt(
        old, new, store.count(old), len(store.choices(old)), len(store.pools(old)),
        store.generation_count(old), len(store.heads(old)),
    )  # fmt: skip


@dataclass(eq=False)
class _Files:
    """The task file on its way to its new name.

    ``source`` describes the task under the old name, ``target`` under the new one, where it is
    moved; they are one if that file is called as the task is to be. ``moved`` is what it then
    says; ``kept`` stays where it is.
    """

    source: Path | None = None
    target: Path | None = None
    moved: TaskSpec | None = None
    kept: Path | None = None
    is_there: bool = False  # the copy, if a renaming was interrupted
    is_written: bool = False
    before: Path | None = None  # what the source said, where the target is the source

    @classmethod
    def of(cls, resources: Resources, old: str, new: str) -> _Files:
        """Find out what is to be done; nothing is for a history in memory."""
        folder, store = resources.paths.tasks, resources.store
        if store.path is None:
            return cls()
        known = read_task_dir(folder)
        for name in (old, new):
            if name in known.broken:
                raise known.broken[name]
        source, there = task_file(folder, old), task_file(folder, new)
        if source is None:
            return cls()
        moved = replace(known[old], name=new)
        if there is not None and known[new] != moved:
            return cls(source, kept=source)
        is_needed = _others_have(resources.paths, store, old)
        if there is not None:
            # A link to the source says the same, and would lead nowhere without it.
            stays = is_needed or there.samefile(source)
            return cls(source, there, moved, source if stays else None, is_there=True)
        target = _target(source, old, new, is_needed=is_needed)
        return cls(source, target, moved, source if is_needed else None)

    def copy(self) -> None:
        """Write the copy if it is not there."""
        if self.source is None or self.target is None or self.moved is None or self.is_there:
            return
        text = read_task_text(self.source)
        if self.target == self.source:
            self.before = _put_by(self.source.resolve())
        self.is_written = True
        write_task_text(self.target, with_name(text, self.moved.name))

    def undo(self) -> None:
        """Take back what was written: nothing was renamed."""
        if not self.is_written or self.target is None:
            return
        with suppress(OSError):  # else what went wrong before would not be told
            if self.before is not None:
                self.before.replace(self.target.resolve())
            else:
                self.target.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the file under the old name, unless it stays."""
        if self.before is not None:
            with suppress(OSError):
                self.before.unlink(missing_ok=True)
        if self.source is None or self.kept is not None or self.target == self.source:
            return
        try:
            self.source.unlink(missing_ok=True)
        except OSError:
            self.kept = self.source


def _put_by(source: Path) -> Path:
    """Copy a task file beside it: what takes that back must need no room."""
    before = source.with_name(f".{source.name}.before.hydra-edge.tmp")
    try:
        with replacing(before, like=source) as stream:
            stream.write(source.read_bytes())
    except OSError as err:
        raise ConfigError(
            f"Cannot write {before}: {err.strerror or err}. Expected room and a folder you may "
            "write to."
        ) from err
    return before


def _target(source: Path, old: str, new: str, *, is_needed: bool) -> Path:
    """Return where a task file is to be written that nothing describes under the new name yet.

    That is the source itself where it is called so already.
    """
    target = file_beside(source, new)
    if not target.exists():
        return target
    if not target.samefile(source):
        raise ConfigError(
            f"{old} was not renamed: got {target}, which describes another task than {new}; "
            "expected no such file. Give that file another name, or the task."
        )
    if is_needed:
        raise ConfigError(
            f"{old} was not renamed: got {source}, which others on this device need for {old}; "
            f"expected a file of another name. Call the file otherwise, and rename {old} again."
        )
    return source


def _others_have(paths: Paths, store: Store, task: str) -> bool:
    """Tell whether another person on this device has records of a task, or may have."""
    for path in sorted(paths.users.glob("*.db")):
        with suppress(OSError):
            if store.path is not None and path.samefile(store.path):
                continue
        try:
            with Store.open(path, create=False) as other:
                if other.count(task):
                    return True
        except StoreError:
            return True
    return False
