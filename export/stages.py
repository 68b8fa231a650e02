"""Stages whose outputs are made once: fingerprints of both, skipping, outputs that appear whole.

Owns the order of stages, when one is skipped, and moving its outputs into place. A stage is a
folder within a work folder: its outputs, and ``inputs.json``, which says what they were made
from and what was left. Knows nothing of what a stage makes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from export.data import sha256_of
from hydra_edge import __version__
from hydra_edge.errors import ConfigError, HydraError
from hydra_edge.types import JsonDict

INPUTS_FILE = "inputs.json"
_LOCK = ".lock"
# What can be another than before, in the words that are said.
_WORDS = {
    "tool": "another version of the tool",
    "files": "other files",
    "stages": "other outputs of earlier stages",
    "parameters": "other parameters",
    "grown": "another state of what it gathers",
}

Say = Callable[[str], None]


class StageError(HydraError):
    """A stage did not leave what it is to leave."""

    code = "stage"


@dataclass(frozen=True, eq=False)
class Stage:
    """One step of a build.

    Parameters
    ----------
    name
        Also the name of its folder.
    run
        Writes the outputs into the empty folder it is given. May be stopped at any point.
    outputs
        What is in the folder afterwards; a later stage is rerun if their bytes change.
    files
        Returns the input files; asked for only where the stage may have to run.
    after
        The earlier stages whose outputs it reads.
    parameters
        All else that decides the outputs; JSON.
    version
        To be raised where the code makes other outputs of the same inputs.
    grown
        Describes inputs that the run itself adds to, such as a cache. Recorded as the run
        leaves them, so that its own additions do not make it run again.
    open_ends
        Given the outputs, says what is still to do, or nothing: such a stage runs again.
    """

    name: str
    run: Callable[[Path], None]
    outputs: tuple[str, ...]
    files: Callable[[], Sequence[Path]] = tuple
    after: tuple[str, ...] = ()
    parameters: JsonDict = field(default_factory=dict)
    version: int = 1
    grown: Callable[[], JsonDict] = dict
    open_ends: Callable[[Path], str] = lambda _folder: ""


def run_stages(
    stages: Sequence[Stage],
    work: Path,
    *,
    only: Sequence[str] = (),
    say: Say,
    deliver: Callable[[], None] | None = None,
) -> list[str]:
    """Run the stages whose inputs have changed or whose outputs are not as left, in order.

    Parameters
    ----------
    work
        Where each stage has its folder.
    only
        Run no others than these; what the others left is taken as it is.
    say
        Told one line about each stage.
    deliver
        Called once all have run, while no other build may work in the folder.

    Returns
    -------
    list of str
        The stages that ran.

    Raises
    ------
    ConfigError
        If ``only`` names no stage, another build is at work in the folder, or a stage that is
        left out has left nothing.
    StageError
        If a stage that ran has not left all its outputs.
    """
    names = [stage.name for stage in stages]
    if unknown := [name for name in only if name not in names]:
        raise ConfigError(
            f"--only: got {', '.join(unknown)}; expected some of {', '.join(names)}. "
            "Name stages of this build."
        )
    ran = []
    with _locked(work):
        _tidy(work, names)
        known = {stage.name: stage for stage in stages}
        for stage in stages:
            earlier = [known[name] for name in stage.after]
            if only and stage.name not in only:
                say(f"{stage.name}: left as it is{_otherwise(stage, earlier, work)}")
                continue
            if _run_one(stage, earlier, work, say):
                ran.append(stage.name)
        if deliver is not None:
            deliver()
    return ran


def _run_one(stage: Stage, earlier: Sequence[Stage], work: Path, say: Say) -> bool:
    folder = work / stage.name
    inputs = _inputs(stage, earlier, work)
    reason = _reason(stage, folder, {**inputs, "grown": stage.grown()})
    if not reason:
        say(f"{stage.name}: skipped, its inputs are unchanged and its outputs are there")
        return False
    say(f"{stage.name}: runs, {reason}")
    part = _part(folder)
    part.mkdir()
    stage.run(part)
    if missing := [name for name in stage.outputs if not (part / name).is_file()]:
        raise StageError(
            f"Stage {stage.name} failed: it left no {', '.join(missing)}; expected "
            f"{', '.join(stage.outputs)}. {folder} is as it was. Correct the stage."
        )
    left = {name: sha256_of(part / name) for name in stage.outputs}
    stated = {**inputs, "grown": stage.grown(), "outputs": left}
    (part / INPUTS_FILE).write_text(
        json.dumps(stated, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    _place(part, folder)
    return True


def _inputs(stage: Stage, earlier: Sequence[Stage], work: Path) -> JsonDict:
    """Describe everything a stage's outputs are made from; no path of this machine is in it."""
    made: JsonDict = {}
    for other in earlier:
        folder = work / other.name
        if missing := [name for name in other.outputs if not (folder / name).is_file()]:
            raise ConfigError(
                f"Stage {stage.name} cannot run: found no {', '.join(missing)} in {folder}; "
                f"expected what stage {other.name} leaves. Run that stage first."
            )
        made[other.name] = _left(other, work)
    return _plain(
        {
            "tool": {"hydra-edge": __version__, "stage": stage.version},
            "files": _named(stage.files()),
            "stages": made,
            "parameters": stage.parameters,
        }
    )


def _left(stage: Stage, work: Path) -> dict[str, str]:
    return {name: sha256_of(work / stage.name / name) for name in stage.outputs}


def _named(paths: Sequence[Path]) -> list[JsonDict]:
    files = sorted((path.name, sha256_of(path)) for path in paths)
    return [{"name": name, "sha256": digest} for name, digest in files]


def _plain(inputs: JsonDict) -> JsonDict:
    """Return it as it is read back: tuples are lists then."""
    plain: JsonDict = json.loads(json.dumps(inputs))
    return plain


def _otherwise(stage: Stage, earlier: Sequence[Stage], work: Path) -> str:
    """Say what a stage that is left out was made with, where that is not what it is told now."""
    try:
        before = json.loads((work / stage.name / INPUTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # it has left nothing: whoever needs it says so
    now: JsonDict = {"parameters": stage.parameters}
    with suppress(HydraError, ImportError, OSError):  # what it runs with need not be installed
        now["files"] = _named(stage.files())
    with suppress(OSError):  # an earlier stage may have left nothing
        now["stages"] = {other.name: _left(other, work) for other in earlier}
    now = _plain(now)
    changed = [word for key, word in _WORDS.items() if key in now and now[key] != before.get(key)]
    return f", made with {' and '.join(changed)}" if changed else ""


def _reason(stage: Stage, folder: Path, inputs: JsonDict) -> str:
    """Say why a stage must run; nothing if it need not."""
    try:
        before = json.loads((folder / INPUTS_FILE).read_text(encoding="utf-8"))
    except OSError:
        return "for the first time"
    except ValueError:
        return f"for its {INPUTS_FILE} is damaged"
    if changed := [word for key, word in _WORDS.items() if inputs[key] != before.get(key)]:
        return f"for {' and '.join(changed)}"
    if missing := [name for name in stage.outputs if not (folder / name).is_file()]:
        return f"for it has lost {', '.join(missing)}"
    # Earlier releases have not stated what they left: their outputs are taken as they are.
    left = before.get("outputs", {})
    names = stage.outputs if left else ()
    if other := [name for name in names if sha256_of(folder / name) != left.get(name)]:
        return f"for its outputs are not what it left: {', '.join(other)}"
    return stage.open_ends(folder)


def _part(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _place(part: Path, folder: Path) -> None:
    """Move new outputs into place; the old ones go only when the new ones are there."""
    if folder.exists():
        folder.rename(_old(folder))
    part.rename(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)


def _tidy(work: Path, names: Sequence[str]) -> None:
    """Undo what a run left that was stopped: half of an output, or a move half made."""
    for name in names:
        folder = work / name
        shutil.rmtree(_part(folder), ignore_errors=True)
        if _old(folder).exists() and not folder.exists():
            _old(folder).rename(folder)
        shutil.rmtree(_old(folder), ignore_errors=True)


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"Cannot work in {work}: {err.strerror or err}; expected a folder, or nothing. Give "
            "another --work."
        ) from err
    lock = FileLock(work / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        raise ConfigError(
            f"Cannot work in {work}: another build is at work there; expected none. Wait for it, "
            "or give another --work."
        ) from err
    try:
        yield
    finally:
        lock.release()
