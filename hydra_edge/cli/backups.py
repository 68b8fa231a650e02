"""A whole history in one file, and back: ``history backup`` and ``history restore``."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.files import check_new
from hydra_edge.cli.session import ask, open_user, settings
from hydra_edge.errors import ConfigError
from hydra_edge.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hydra_edge.paths import Paths
    from hydra_edge.store import Contents, Restored, Store
    from hydra_edge.types import JsonDict


def back_up(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to (mode 0600).")],
    user: options.User = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Copy the whole history to a file, for `history restore`.

    Records, answers, choices, vectors and heads are in it, and the files that describe its tasks;
    settings and keys are not. Other programs may go on meanwhile. `forget` reaches neither FILE
    nor, where this is killed, the .NAME.*.hydra-edge.tmp beside it.
    """
    if file == "-":
        raise typer.BadParameter("is stdout; expected a file.", param_hint="FILE")
    path, paths = expanded(file), settings()[1]
    with open_user(ctx, user) as me:
        check_new(path, force=force)
        texts = _task_files(me.store, paths)
        with output.LateBar(quiet=as_json) as bar:
            records = me.store.back_up(path, task_files=texts, progress=bar)
    size = path.stat().st_size
    if as_json:
        told: JsonDict = {"user": me.user, "file": str(path), "records": records, "bytes": size}
        output.write_json(told | {"task_files": sorted(texts)})
        return
    files = f", {views.plural(len(texts), 'task file')}" if texts else ""
    output.plain(
        f"{me.user}: {views.plural(records, 'record')} and all made of them{files}, "
        f"{views.size(size)}, written to {path}"
    )
    if paths.config_file.is_file():
        folder = shlex.quote(str(path.parent))
        output.note(f"Settings are not in it: cp {shlex.quote(str(paths.config_file))} {folder}")


def _task_files(store: Store, paths: Paths) -> dict[str, str]:
    """Return the files that describe a person's tasks, by task; one that cannot be read stays."""
    from hydra_edge.taskfile import read_task_text, task_file

    of_heads = {head.task for head in store.heads()}
    of_choices = {choice.task for choice in store.choices()}
    texts = {}
    for name in sorted({*store.tasks(), *of_heads, *of_choices}):
        if (found := task_file(paths.tasks, name)) is not None:
            with suppress(ConfigError, UnicodeDecodeError):
                texts[name] = read_task_text(found)
    return texts


def restore(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup, by `history backup`.")],
    user: options.User = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be replaced; change nothing.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Put a backup in the place of a history, all of it or nothing.

    The backup is checked first, and you are asked with what both hold. What you have forgotten or
    marked private since it was made is as it was then. What is there is kept beside it, under its
    name and the date, also if it is damaged; `forget` does not reach that copy, `forget --all`
    removes it. No other program may have the history open: end `serve`, `mcp` and applications.
    Somebody who is not on this device yet is begun. Task files come along where there is none for
    their task.
    """
    from hydra_edge.store import Store

    if file == "-":
        raise typer.BadParameter("is stdin; expected a file.", param_hint="FILE")
    config, paths = settings()
    name, source = config.user if user is None else user, expanded(file)
    path = paths.user_file(name)
    found = Store.would_restore(path, source)
    if not as_json:
        _tell_both(found)
    if dry_run:
        tasks = _bring_back(found.task_files, paths, write=False)
        if as_json:
            output.write_json(_json(name, source, found, tasks) | {"dry_run": True})
        else:
            _tell_tasks(tasks, done=False)
            output.note("Nothing was changed.")
        return
    ask(_question(name, source, found), yes=yes)
    try:
        with output.LateBar(quiet=as_json) as bar:
            done = Store.restore(path, source, progress=bar)
    except KeyboardInterrupt:
        again = options.command("history", "restore", str(source), "--dry-run", user=user)
        output.note(f"Interrupted: one of both is there, whole. Which one, {again} shows.")
        raise
    tasks = _bring_back(done.task_files, paths, write=True)
    if as_json:
        output.write_json(_json(name, source, done, tasks))
        return
    output.plain(f"{name}: {_counts(done.backup)} restored from {source}")
    if done.kept is not None:
        output.note(
            f"What was there is kept as {done.kept}. `forget` does not reach it: remove it once "
            "you are sure."
        )
    _tell_tasks(tasks, done=True)
    if done.before is None and not done.fault:
        output.note(
            f"Settings are not in a backup: copy the other device's to {paths.config_file}. Keys "
            "are set by `hydra-edge keys set`, tokens of apps by `hydra-edge serve token add`."
        )


def _counts(contents: Contents) -> str:
    return ", ".join(
        (
            views.plural(contents.records, "record"),
            views.plural(contents.choices, "choice"),
            views.plural(contents.heads, "head"),
        )
    )


def _row(name: str, contents: Contents) -> tuple[str, ...]:
    counts = (contents.records, contents.choices, contents.heads, contents.answers)
    return (name, *(f"{count:,}" for count in counts), views.when(contents.newest))


def _tell_both(found: Restored) -> None:
    """Show what a backup holds beside what is there."""
    rows = [_row("backup", found.backup)]
    if found.before is not None:
        rows.insert(0, _row("there now", found.before))
    output.table(("", "records", "choices", "heads", "answers", "newest record"), rows)
    if found.fault:
        output.note(f"What is there cannot be read: {found.fault}", style="yellow")


def _question(name: str, source: Path, found: Restored) -> str:
    if found.before is None and not found.fault:
        return f"Begin {name}, who is not on this device yet, with {source}?"
    there = "the damaged file" if found.before is None else f"the {_counts(found.before)}"
    return f"Replace {there} of {name} by the {_counts(found.backup)} of {source}?"


def _bring_back(texts: Mapping[str, str], paths: Paths, *, write: bool) -> dict[str, list[str]]:
    """Write the task files of tasks that have none here; return the tasks by what became of them.

    ``differs``: there is one that says otherwise, and stays. ``unusable``: the backup's is none.
    """
    from hydra_edge.privatefiles import make_private_dir
    from hydra_edge.taskfile import file_beside, read_task_text, task_file, write_task_text

    became: dict[str, list[str]] = {"written": [], "differs": [], "unusable": []}
    for name, text in sorted(texts.items()):
        there = task_file(paths.tasks, name)
        try:
            target = there or file_beside(paths.tasks / "task.toml", name)
            if not _describes(text, name) or (there is None and target.exists()):
                became["unusable"].append(name)
            elif there is not None:
                if read_task_text(there) != text:
                    became["differs"].append(name)
            else:
                if write:
                    make_private_dir(paths.tasks)
                    write_task_text(target, text)
                became["written"].append(name)
        except (ConfigError, OSError, ValueError):
            became["unusable"].append(name)
    return became


def _describes(text: str, name: str) -> bool:
    """Tell whether a text is the file of a task, by the name it says or is given."""
    import tomllib

    from hydra_edge.tasks import canonical_name

    said = tomllib.loads(text).get("name", name)
    return isinstance(said, str) and canonical_name(said) == name


def _tell_tasks(became: Mapping[str, list[str]], *, done: bool) -> None:
    lines = {
        "written": "Task files written" if done else "Task files that would be written",
        "differs": "Tasks whose file here says otherwise than the backup's, and stays",
        "unusable": "Tasks whose file of the backup cannot be written here",
    }
    for kind, line in lines.items():
        if became[kind]:
            output.note(f"{line}: {', '.join(map(output.one_line, became[kind]))}")


def _json(name: str, source: Path, told: Restored, tasks: Mapping[str, list[str]]) -> JsonDict:
    return {
        "user": name,
        "file": str(source),
        "backup": asdict(told.backup),
        "before": None if told.before is None else asdict(told.before),
        "fault": told.fault,
        "kept": None if told.kept is None else str(told.kept),
        "task_files": dict(tasks),
    }
