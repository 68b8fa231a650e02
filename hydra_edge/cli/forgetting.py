"""Forgetting: ``forget``, ``history delete`` and ``history clear-log``."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from hydra_edge.cli import erasing, options, output, views
from hydra_edge.cli.group import put
from hydra_edge.cli.session import ask, open_user, settings
from hydra_edge.errors import BytesRemainError, CancelledError, ConfigError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hydra_edge.paths import Paths
    from hydra_edge.server.tokens import TokenFiles
    from hydra_edge.store import Store
    from hydra_edge.types import JsonDict


def clear_log(
    ctx: typer.Context,
    user: options.User = None,
    choices: Annotated[
        bool,
        typer.Option(
            "--choices",
            help="Erase choices made with --no-keep, too; heads that may have learned from them "
            "are fitted again without.",
        ),
    ] = False,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="TIME",
            help="Only answers given, and choices made, before then: unix seconds or ISO date.",
        ),
    ] = None,
    generation: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Only this answer: see `history log`."),
    ] = None,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Erase the log of answers given; all else stays.

    Ctrl-C leaves what is not erased yet, and says which heads are still to be fitted again.
    """
    if generation is not None and before is not None:
        raise typer.BadParameter("expected either --id or --before.", param_hint="--id")
    moment = None if before is None else _moment(before, "--before")
    with open_user(ctx, user) as me:
        if generation is not None:
            what = _one_answer(me.store, generation, choices=choices)
        else:
            what = "the log, and choices no record was kept of," if choices else "the log"
        older = "" if moment is None else f", as far as it is from before {views.when(moment)}"
        ask(f"Erase {what} of {me.user}{older}?", yes=yes)
        heads_before, entries_before = me.store.heads(), _entries(me.store, choices=choices)
        remain: BytesRemainError | None = None
        interrupted = False
        try:
            with output.LateBar(quiet=as_json) as bar:
                cleared = me.clear_log(
                    choices=choices, before=moment, generation_id=generation, progress=bar
                )
        except BytesRemainError as err:
            cleared, remain = err.cleared, err
        except KeyboardInterrupt:
            cleared = max(0, entries_before - _entries(me.store, choices=choices))
            if not cleared:
                raise
            interrupted = True
        not_fitted = erasing.unfitted(me) if interrupted else []
        is_finished = not interrupted or me.store.is_erased()
        left = {(head.task, head.role, head.version) for head in me.store.heads()}
    dropped = [h for h in heads_before if (h.task, h.role, h.version) not in left]
    if as_json:
        heads = [{"task": h.task, "role": h.role, "version": h.version} for h in dropped]
        told: JsonDict = {"cleared": cleared} | ({"heads_dropped": heads} if choices else {})
        told |= {} if moment is None else {"before": moment}
        told |= {} if generation is None else {"id": generation}
        told |= {"interrupted": True, "not_fitted": not_fitted} if interrupted else {}
        output.write_json(told | erasing.error_of(remain))
    else:
        word = "erased" if remain is None and is_finished else "deleted"
        output.plain(f"{views.plural(cleared, 'entry', 'entries')} {word}")
        if dropped:
            names = ", ".join(f"{h.task} {h.role} v{h.version}" for h in dropped)
            output.note(f"Heads that may have learned from them are erased, too: {names}")
    if not is_finished:
        output.note("Interrupted: what is left goes when you run this again.")
    if not_fitted:
        output.note(f"Interrupted: {erasing.not_fitted_line(not_fitted, user)}")
    erasing.fail(remain)
    if interrupted:
        raise typer.Exit(130)


def _entries(store: Store, *, choices: bool) -> int:
    """Count what ``clear_log`` may erase, and what it leaves."""
    return store.generation_count() + (len(store.choices()) if choices else 0)


def _one_answer(store: Store, generation_id: str, *, choices: bool) -> str:
    """Say which answer is to go; refuse one that is not there."""
    found = store.generation(generation_id)
    if found is None and not (choices and store.choice(generation_id)):
        raise ConfigError(
            f"There is no answer {generation_id!r:.80} in the log; nothing is erased. "
            "`hydra-edge history log` lists those there are."
        )
    asked = "" if found is None else f" to {output.one_line(found.query, 60)!r}"
    chosen = ", and the choice no record was kept of," if choices else ""
    return f"the answer {generation_id}{asked}{chosen}"


def _moment(text: str, option: str) -> float:
    """Read a moment as `add --time` does; an empty one must not stand for all time."""
    from hydra_edge.importers.base import parse_time

    try:
        moment = parse_time(text)
    except ValueError as err:
        raise typer.BadParameter(f"{err}.", param_hint=option) from err
    if moment is None:
        raise typer.BadParameter(
            "is empty; expected unix seconds or an ISO date such as 2023-12-31.", param_hint=option
        )
    return moment


def delete_records(
    ctx: typer.Context,
    record_ids: Annotated[
        list[str], typer.Argument(metavar="RECORD_ID...", help="Ids of records.")
    ],
    user: options.User = None,
    dry_run: options.WhatIf = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete records for good: the same as `forget`."""
    _forget(ctx, user, record_ids, dry_run=dry_run, yes=yes, as_json=as_json)


def forget(
    ctx: typer.Context,
    record_ids: options.RecordIds = None,
    source: options.WholeSource = None,
    task: Annotated[
        str | None,
        options.task_option("All of this task, its choices, bought answers and heads included."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="The whole user: records, heads, log, the file itself.")
    ] = False,
    user: options.User = None,
    dry_run: options.WhatIf = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Erase records for good, and all that was made of them.

    Vectors go with them, and all that was answered with them in sight: log entries, what you chose
    of these, the pools of answers that `fit-head` asked an LLM for, and answers you kept that copy
    their text. You are asked with the numbers first. Afterwards the file holds none of their bytes,
    nor that they were there: importing the same source again brings them back. Heads that learned
    from them are fitted again; those of a task that goes go with it. The file that describes a task
    stays (see `tasks path`).
    """
    from hydra_edge.tasks import canonical_name

    if bool(record_ids) + (source is not None) + (task is not None) + everything != 1:
        raise typer.BadParameter(
            "expected exactly one of: ids of records, --source, --task, --all.",
            param_hint="RECORD_ID",
        )
    if everything and dry_run:
        raise typer.BadParameter(
            "is for records; --all erases the whole file.", param_hint="--dry-run"
        )
    if everything:
        _forget_user(user, yes=yes, as_json=as_json)
    else:
        name = None if task is None else canonical_name(task)
        _forget(
            ctx, user, record_ids or [], source, name, dry_run=dry_run, yes=yes, as_json=as_json
        )


def _forget(
    ctx: typer.Context,
    user: str | None,
    record_ids: Sequence[str],
    source: str | None = None,
    task: str | None = None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    with open_user(ctx, user) as me:
        # Unknown ids are told before anything is asked.
        sources = {me.store.get(record_id).source for record_id in record_ids} | {source or ""}
        if not as_json and source is not None:
            _tell_theirs(me.store, source)
        if dry_run or not yes:
            with output.LateBar(quiet=as_json) as bar:
                found = me.store.would_forget(
                    tuple(record_ids), source=source, task=task, progress=bar
                )
        if dry_run:
            erasing.tell_found(found, as_json=as_json)
            return
        if not yes:
            ask(erasing.question(found, me.user, **_named(source, task)), yes=False)
        if task is not None:
            sources |= {name for name in me.store.sources() if me.store.count(task, source=name)}
        holders = me.store.holders(record_ids, source=source, task=task)
        sources |= {name for names in holders.values() for name in names}
        done = erasing.erase(me, record_ids, source=source, task=task, quiet=as_json)
    kept = _task_file(task)
    if as_json:
        output.write_json(done.json() | ({} if task is None else {"task_file": kept}))
    else:
        erasing.tell(done, sources if done.receipt.records else ())
        if kept is not None:
            output.note(f"{kept}, which describes the task, stays.")
    done.end(user)


def _tell_theirs(store: Store, source: str) -> None:
    """Say how much of a source stays, as others brought it first."""
    if theirs := len(store.also_held_from(source)):
        count, stay = views.plural(theirs, "record"), "it stays" if theirs == 1 else "they stay"
        output.note(f"{count} of it came from other sources first: {stay}, as theirs.")


class _Named(TypedDict):
    which: str
    whole: bool


def _named(source: str | None, task: str | None) -> _Named:
    """Say what the records have in common that are to be forgotten as a whole."""
    if task is not None:
        return {"which": f" of task {task}", "whole": True}
    if source is not None:
        return {"which": f" from {output.one_line(source)}", "whole": True}
    return {"which": "", "whole": False}


def _task_file(task: str | None) -> str | None:
    """Return the file that describes a task, which others may need."""
    from hydra_edge.paths import find_paths
    from hydra_edge.taskfile import task_file

    found = None if task is None else task_file(find_paths().tasks, task)
    return None if found is None else str(found)


def _forget_user(user: str | None, *, yes: bool, as_json: bool) -> None:
    """Remove a user's file without opening it, so that a damaged one can go too.

    And the tokens of the user's apps, or they would open what the next one of that name has. Those
    first: while the file is there, a stopped removal can be repeated. What cannot be done about
    them, as their file is damaged, keeps nothing from being forgotten.
    """
    from hydra_edge.server.tokens import TokenFiles
    from hydra_edge.store import Store

    config, paths = settings()
    name = config.user if user is None else user
    path, files = paths.user_file(name), TokenFiles.of(paths)
    users = _names_of(paths, name)
    is_there = path.exists()
    if is_there:
        ask(f"Erase everything about {name} ({path}) for good?", yes=yes)
    elif left_over := _apps(files, users):
        ask(f"Take back the tokens of {', '.join(left_over)}, all there is of {name}?", yes=yes)
    else:
        Store.forget_user(path)  # says whom there is
    apps = _apps(files, users)
    try:
        removed, fault = _take_back(files, users)
        if is_there:
            Store.forget_user(path)
        if fault is not None:  # there may be room now
            removed, fault = _take_back(files, users)
    except KeyboardInterrupt as err:
        told = _how_far(path, name, apps, _apps(files, users))
        output.write_error(CancelledError.code, told, as_json=as_json)
        raise typer.Exit(130) from err
    if as_json:
        output.write_json(
            {"user": name, "forgotten": True, "apps_removed": removed} | erasing.error_of(fault)
        )
    else:
        output.plain(f"Forgotten: everything about {name}.{_tokens(removed)}")
    erasing.fail(fault)


def _names_of(paths: Paths, name: str) -> set[str]:
    """Return the names whose tokens open a user's file, which may have several."""
    from hydra_edge.server.tokens import TokenFiles, read_apps

    names, path = {name}, paths.user_file(name)
    with suppress(ConfigError):  # what cannot be read opens nothing
        for scope in read_apps(TokenFiles.of(paths)).values():
            with suppress(ConfigError, OSError):
                if paths.user_file(scope.user).samefile(path):
                    names.add(scope.user)
    return names


def _apps(files: TokenFiles, users: set[str]) -> list[str]:
    """Return the apps with tokens of users, as far as that can be told."""
    from hydra_edge.server.tokens import apps_of

    with suppress(ConfigError):
        return apps_of(files, users)
    return []


def _take_back(files: TokenFiles, users: set[str]) -> tuple[list[str], ConfigError | None]:
    """Make the tokens of users' apps worthless; return the apps, and why that cannot be done."""
    from hydra_edge.server.tokens import remove_apps_of

    try:
        return remove_apps_of(files, users), None
    except ConfigError as err:
        if not (apps := _apps(files, users)):
            return [], err
        each = "; ".join(f"hydra-edge serve token remove {app}" for app in apps)
        return [], ConfigError(
            f"{err} Until then the tokens of {', '.join(apps)} open what the next of that name "
            f"has. Then run: {each}"
        )


def _tokens(removed: list[str]) -> str:
    if not removed:
        return ""
    return f" The tokens of these apps open nothing any more: {', '.join(removed)}."


def _how_far(path: Path, name: str, before: list[str], left: list[str]) -> str:
    """Say what is gone of a user whose removal was interrupted.

    ``before`` and ``left`` are the apps that had tokens, and those that have them still.
    """
    from hydra_edge.store import Store

    done = "is erased"
    if left:
        done = f"is erased but for the tokens of {', '.join(left)}. Run this again"
    if path.exists():
        done = "may be erased or not. Run this again"
        with suppress(StoreError), Store.open(path, create=False) as store:
            done = "is there still"
            if not (store.count() or store.heads() or store.choices() or store.generation_count()):
                done = f"is erased but for its file, {path}, which is empty. Run this again"
    removed = [app for app in before if app not in left]
    return f"Interrupted: everything about {name} {done}.{_tokens(removed)}"


def register(app: typer.Typer) -> None:
    """Add the command; the others are those of ``history``."""
    put(
        app, "forget", forget,
        "hydra-edge forget 0f3a9c6d12b45e78 --dry-run",
        "hydra-edge forget 0f3a9c6d12b45e78",
        "hydra-edge forget --source git:/home/ada/src/project --yes",
        "hydra-edge forget --task movie_tag --dry-run",
        "hydra-edge forget --all --user ada",
    )  # fmt: skip
