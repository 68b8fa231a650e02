"""Files and folders that only their owner can read: made, changed by one at a time, replaced.

Owns how any file is replaced in one step, those of other programs included.
"""

from __future__ import annotations

import glob
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hydra_edge.errors import ConfigError
from hydra_edge.paths import find_paths
from hydra_edge.variables import ENV_PREFIX

_LOCK_WAIT_S = 10.0
# A temporary file nobody wrote to for so long belongs to a program that was killed.
_LEFT_OVER_S = 3600.0
_TEMPORARY = ".hydra-edge.tmp"  # how all those end that have one name only once
_OF_SQLITE = ("-wal", "-shm", "-journal")
_PRIVATE = 0o600


def make_private_dir(path: Path) -> None:
    """Create a folder only its owner can enter, and so those of ours above it that are missing.

    Folders that are there, and others that have to be made, are not ours to close.

    Raises
    ------
    ConfigError
        If it cannot be created.
    """
    paths = find_paths()
    roots = (paths.data, paths.config, paths.cache)
    above = [parent for parent in path.parents if any(map(parent.is_relative_to, roots))]
    try:
        for folder in (*reversed(above), path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"Cannot create the folder {path}: {err.strerror or err}. Expected a writable place. "
            f"Set {ENV_PREFIX}HOME to one."
        ) from err


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Read, change and write a file of ours while no other program does; its folder is made.

    What a killed program left of writing it goes at once: nobody else can be writing it.

    Raises
    ------
    ConfigError
        If another program keeps changing it, or its folder cannot be made or written to.
    """
    from filelock import FileLock, Timeout

    make_private_dir(file.parent)
    lock = FileLock(file.with_suffix(".lock"), timeout=_LOCK_WAIT_S, mode=0o600)
    try:
        lock.acquire()
    except Timeout as err:
        raise ConfigError(
            f"{file} is being changed by another program for {_LOCK_WAIT_S:g} s. Try again."
        ) from err
    except OSError as err:
        raise ConfigError(
            f"Cannot write {file}: {err.strerror or err}. Expected a folder you may write to."
        ) from err
    try:
        target = Path(os.path.realpath(file))
        _remove_temporary(target.parent, f".{glob.escape(target.name)}.*.tmp", math.inf)
        yield
    finally:
        lock.release()


def read_private(path: Path, *, name: str, remedy: str) -> str | None:
    """Read a text that must be its owner's alone; None if there is no file.

    Raises
    ------
    ConfigError
        If others can read it, by the ``name`` it is called and with what to do about that.
    OSError, UnicodeDecodeError
        If it cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"{name} can be read by others: its mode is {stat.S_IMODE(mode):04o}; expected "
                f"0600. {remedy}"
            )
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def remove_left_over(target: Path, *, like: str = "") -> None:
    """Remove the temporary files that killed programs left of writing a file, hours ago.

    They stand beside it and are called ``.NAME.ANYTHING.tmp``. ``like`` is a pattern of names
    instead of the target's own, where several of a kind are in its folder. Those of ours whose
    target may never be written again, as a backup that has its date for a name, go with them. What
    cannot be removed stays: the file can be written nevertheless.
    """
    ours = (f".*{_TEMPORARY}{end}" for end in ("", *_OF_SQLITE))
    patterns = (f".{like or glob.escape(target.name)}.*.tmp", *ours)
    with suppress(OSError):
        if any(True for pattern in patterns for _ in target.parent.glob(pattern)):
            latest = _now_in(target.parent) - _LEFT_OVER_S
            for pattern in patterns:
                _remove_temporary(target.parent, pattern, latest)


def _now_in(folder: Path) -> float:
    """Return the time by the clock that dates the folder's files: a share has one of its own."""
    probe = folder / f".{secrets.token_hex(6)}{_TEMPORARY}"
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))
        return probe.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _remove_temporary(folder: Path, pattern: str, latest: float) -> None:
    """Remove the files called so that were last written to before a time."""
    with suppress(OSError):
        for part in folder.glob(pattern):
            with suppress(OSError):
                if part.lstat().st_mtime < latest:
                    part.unlink()


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Give a name for a temporary file beside a target; what has it at the end is removed.

    And what SQLite kept beside it.
    """
    remove_left_over(target)
    # Of this call alone: threads, and processes in containers, may share a number and a folder.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_TEMPORARY}")
    try:
        yield temporary
    finally:
        for name in (temporary.name, *(temporary.name + end for end in _OF_SQLITE)):
            with suppress(OSError):  # else what went wrong before would not be told
                temporary.with_name(name).unlink(missing_ok=True)


@contextmanager
def replacing(
    target: Path, *, mode: int = _PRIVATE, like: Path | None = None
) -> Iterator[BinaryIO]:
    """Replace a file in one step, once the body has written the new one.

    A crash, or what the body raises, leaves the old one. A link is replaced, not what it leads to.

    Parameters
    ----------
    target
        The file, which need not be there. Its folder must be.
    mode
        The new file's mode.
    like
        A file whose mode it gets instead; nobody else can read it before that.
    """
    with temporary_beside(target) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if like is not None:
            shutil.copymode(like, temporary)
        elif mode != _PRIVATE:  # some disks know no modes and refuse this
            temporary.chmod(mode)
        temporary.replace(target)


@contextmanager
def replacing_path(target: Path, *, once: bool = False) -> Iterator[Path]:
    """Replace a file as ``replacing`` does, for a body that makes the new one under a given name.

    The file has the mode the body gives it. ``once`` leaves a target that is there by the end:
    others may have it open, and on Windows no open file can be replaced.
    """
    with temporary_beside(target) as temporary:
        yield temporary
        if once and target.is_file():
            return
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        temporary.replace(target)


def write_private(path: Path, text: str) -> None:
    """Replace a file's content in one step, mode 0600: a crash leaves the old or the new one.

    A link stays: the file it leads to is replaced. What is no file (a pipe, a device) is
    written to.
    """
    try:
        replaces = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        replaces = True
    if not replaces:
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    with replacing(Path(os.path.realpath(path))) as new:
        new.write(text.replace("\n", os.linesep).encode("utf-8"))  # lines end as in any text file
