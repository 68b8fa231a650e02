"""The scripts in a repository's hooks folder: put there, found, and taken out again.

A hook that is already there is kept under another name, runs first, and comes back when ours
goes. Whatever happens to us, the script ends well: a proposal is never worth a commit.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra_edge.errors import ConfigError
from hydra_edge.githook.proposal import COMMITTED, PENDING
from hydra_edge.githook.repository import Repository
from hydra_edge.privatefiles import replacing

HOOKS = ("prepare-commit-msg", "post-commit")
BEFORE = ".before-hydra-edge"
_MARK = "# Written by `hydra-edge git-hook install`; `hydra-edge git-hook uninstall` removes it."
_CALLED = ' "$@" || :'
_EXPORT = "export "
_SCRIPT = """\
#!/bin/sh
{mark}
before="$0{suffix}"
if [ -x "$before" ]; then
    "$before" "$@" || exit $?
fi
{guard}{environment}if [ -x {program} ]; then
    {command}{called}
else
    echo hydra-edge: {program} is gone. Install it, or run: hydra-edge git-hook uninstall >&2
fi
exit 0
"""
# The common case, a commit without a proposal, is not worth starting Python for.
_FILE = '"$(git rev-parse --git-dir)/' + PENDING + '"'
_GUARDS = {
    "prepare-commit-msg": f"rm -f {_FILE}\ncase \"$2\" in '' | template) ;; *) exit 0 ;; esac\n",
    "post-commit": f"[ -f {_FILE} ] || exit 0\n",
}


@dataclass(frozen=True, slots=True)
class HookState:
    """One hook: whether ours is there, and whether another one runs before it.

    ``set_aside`` is one of others that does not run: ours, before which it would, is not there.
    """

    name: str
    path: Path
    installed: bool
    chained: bool
    set_aside: bool


def states(repository: Repository) -> list[HookState]:
    """Return how each of our hooks is."""
    return [_state(repository.hooks_dir / name) for name in HOOKS]


def _state(path: Path) -> HookState:
    chained = _exists(_before(path))
    return HookState(path.name, path, _is_ours(path), chained, chained and not _exists(path))


def install(
    repository: Repository,
    program: Sequence[str],
    options: Sequence[str],
    environment: Mapping[str, str],
) -> list[HookState]:
    """Put our hooks into a repository; doing so again only renews them.

    Parameters
    ----------
    program, options
        Hydra-edge as a hook must call it, and the options of ``git-hook run``.
    environment
        What the hook must find in its environment.

    Raises
    ------
    ConfigError
        If a hook cannot be kept because its second name is taken, or cannot be written.
    """
    before = states(repository)
    for state in before:
        if state.chained and not state.installed and _exists(state.path):
            raise ConfigError(
                f"Two hooks want one name: got {state.path} beside {state.path.name}{BEFORE}, "
                "and neither is ours; expected at most one. Put them together into one, then "
                "run this again."
            )
    try:
        repository.hooks_dir.mkdir(parents=True, exist_ok=True)
        for state in before:
            script = _script(state.name, program, options, environment)
            _put(state.path, script.encode("utf-8"))
    except OSError as err:
        raise _unwritable(repository, err) from err
    return states(repository)


def _put(path: Path, script: bytes) -> None:
    """Put a hook of ours in its place, and the one that is there before it."""
    theirs = _exists(path) and not _is_ours(path)
    try:
        with replacing(path, mode=0o755) as stream:
            stream.write(script)
            stream.flush()
            os.fsync(stream.fileno())  # once theirs is set aside, nothing needs room any more
            if theirs:
                path.rename(_before(path))
    except BaseException:
        if theirs and not _exists(path):
            _before(path).rename(path)
        raise


def uninstall(repository: Repository) -> list[HookState]:
    """Take our hooks out, and put back what was there; hooks of others are left alone.

    Returns
    -------
    list of HookState
        The hooks that were taken out or put back, as they were.
    """
    removed = [state for state in states(repository) if state.installed or state.set_aside]
    try:
        for state in removed:
            if state.chained:
                _before(state.path).replace(state.path)
            else:
                state.path.unlink()
        for name in (PENDING, COMMITTED):
            (repository.git_dir / name).unlink(missing_ok=True)
    except OSError as err:
        raise _unwritable(repository, err) from err
    return removed


@dataclass(frozen=True, slots=True)
class Installed:
    """What ``install`` was given: the options our hooks run with, and their environment."""

    options: list[str]
    environment: dict[str, str]


def installed(repository: Repository) -> Installed | None:
    """Return what our first hook was installed with; None if it is not there, or not as written."""
    state = states(repository)[0]
    if not state.installed:
        return None
    environment: dict[str, str] = {}
    try:
        for line in state.path.read_text(encoding="utf-8").splitlines():
            if line.startswith(_EXPORT):
                name, _, value = shlex.split(line)[1].partition("=")
                environment[name] = value
            elif line.endswith(_CALLED):
                words = shlex.split(line.removesuffix(_CALLED))
                options = words[words.index("run") + 1 : words.index("--")]
                return Installed(options, environment)
    except (OSError, ValueError, IndexError):  # somebody edited it
        pass
    return None


def remarks(repository: Repository) -> list[str]:
    """Say who else meets hooks that are not in git's own folder of this repository."""
    folder = repository.hooks_dir.resolve()
    if not repository.setting("core.hooksPath"):
        return []
    if folder.is_relative_to(repository.root.resolve()):
        return [
            f"core.hooksPath is a folder of the working tree: {folder}. The hooks name programs "
            "of this machine; do not commit them."
        ]
    return [f"core.hooksPath is {folder}: every repository that uses it gets these hooks."]


def _script(
    name: str, program: Sequence[str], options: Sequence[str], environment: Mapping[str, str]
) -> str:
    words = [*program, "git-hook", "run", *options, "--", name]
    return _SCRIPT.format(
        mark=_MARK,
        called=_CALLED,
        suffix=BEFORE,
        guard=_GUARDS[name],
        environment="".join(
            f"{_EXPORT}{key}={shlex.quote(value)}\n" for key, value in environment.items()
        ),
        program=shlex.quote(program[0]),
        command=shlex.join(words),
    )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return _MARK.encode() in stream.read(512)
    except OSError:
        return False


def _before(path: Path) -> Path:
    return path.with_name(path.name + BEFORE)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _unwritable(repository: Repository, err: OSError) -> ConfigError:
    return ConfigError(
        f"Cannot change the hooks in {repository.hooks_dir}: {err.strerror or err}. Expected a "
        "folder you may write to. Check its permissions."
    )
