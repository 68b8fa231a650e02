"""Files and folders that only their owner can read: made, changed by one at a time, replaced."""

from __future__ import annotations

import glob
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra_edge.errors import ConfigError
from hydra_edge.paths import find_paths
from hydra_edge.variables import ENV_PREFIX

_LOCK_WAIT_S = 10.0
# A temporary file nobody wrote to for so long belongs to a program that was killed.
_LEFT_OVER_S = 3600.0


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
        yield
    finally:
        lock.release()


def remove_left_over(target: Path, *, like: str = "") -> None:
    """Remove the temporary files that killed programs left of writing a file, hours ago.

    They stand beside it and are called ``.NAME.ANYTHING.tmp``. ``like`` is a pattern of names
    instead of the target's own, where several of a kind are in its folder. What cannot be removed
    stays: the file can be written nevertheless.
    """
    latest = time.time() - _LEFT_OVER_S
    with suppress(OSError):
        for part in target.parent.glob(f".{like or glob.escape(target.name)}.*.tmp"):
            with suppress(OSError):
                if part.lstat().st_mtime < latest:
                    part.unlink()


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
    target = Path(os.path.realpath(path))
    remove_left_over(target)
    # Of this call alone: several threads may save a file at once.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
