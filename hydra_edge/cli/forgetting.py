"""Forgetting: ``forget``, ``history delete`` and ``history clear-log``."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.group import put
from hydra_edge.cli.session import ask, open_user, settings
from hydra_edge.errors import BytesRemainError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra_edge.errors import HydraError
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.store import Store
    from hydra_edge.types import ForgetReceipt, JsonDict


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
        not_fitted = unfitted(me) if interrupted else []
        is_finished = not interrupted or me.store.is_erased()
        left = {(head.task, head.role, head.version) for head in me.store.heads()}
    dropped = [h for h in heads_before if (h.task, h.role, h.version) not in left]
    if as_json:
        heads = [{"task": h.task, "role": h.role, "version": h.version} for h in dropped]
        told: JsonDict = {"cleared": cleared} | ({"heads_dropped": heads} if choices else {})
        told |= {} if moment is None else {"before": moment}
        told |= {} if generation is None else {"id": generation}
        told |= {"interrupted": True, "not_fitted": not_fitted} if interrupted else {}
        output.write_json(told | _error(remain))
    else:
        word = "erased" if remain is None and is_finished else "deleted"
        output.plain(f"{views.plural(cleared, 'entry', 'entries')} {word}")
        if dropped:
            names = ", ".join(f"{h.task} {h.role} v{h.version}" for h in dropped)
            output.note(f"Heads that may have learned from them are erased, too: {names}")
    if not is_finished:
        output.note("Interrupted: what is left goes when you run this again.")
    if not_fitted:
        output.note(f"Interrupted: {not_fitted_line(not_fitted, user)}")
    _fail(remain)
    if interrupted:
        raise typer.Exit(130)


def _entries(store: Store, *, choices: bool) -> int:
    """Count what ``clear_log`` may erase, and what it leaves."""
    return store.generation_count() + (len(store.choices()) if choices else 0)


def unfitted(me: Personalizer) -> list[str]:
    """Return the tasks with heads that are to be fitted again, and can be."""
    from hydra_edge.forgetting import can_fit

    stale = {head.task for head in me.store.heads() if head.stale}
    return sorted(task for task in stale if can_fit(me.store, me.task, task))


def not_fitted_line(tasks: Iterable[str], user: str | None) -> str:
    """Name the commands that fit the heads of these tasks again."""
    fits = "; ".join(options.command("fit-head", task=task, user=user) for task in tasks)
    return f"heads not fitted again: {fits}"


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


def _error(remain: HydraError | None) -> JsonDict:
    """Return what programs are told, beside what was deleted, of what may remain."""
    return {} if remain is None else output.error_json(remain.code, str(remain))


def _fail(remain: HydraError | None) -> None:
    """End with the error, once what was deleted is told, if something may remain."""
    if remain is not None:
        output.write_error(remain.code, str(remain), as_json=False)
        raise typer.Exit(1)


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
    _forget(ctx, user, record_ids, None, dry_run=dry_run, yes=yes, as_json=as_json)


def forget(
    ctx: typer.Context,
    record_ids: options.RecordIds = None,
    source: options.WholeSource = None,
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
    from them are fitted again.
    """
    if bool(record_ids) + (source is not None) + everything != 1:
        raise typer.BadParameter(
            "expected exactly one of: ids of records, --source, --all.", param_hint="RECORD_ID"
        )
    if everything and dry_run:
        raise typer.BadParameter(
            "is for records; --all erases the whole file.", param_hint="--dry-run"
        )
    if everything:
        _forget_user(user, yes=yes, as_json=as_json)
    else:
        _forget(ctx, user, record_ids or [], source, dry_run=dry_run, yes=yes, as_json=as_json)


def _forget(
    ctx: typer.Context,
    user: str | None,
    record_ids: Sequence[str],
    source: str | None,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    with open_user(ctx, user) as me:
        # Unknown ids are told before anything is asked.
        sources = {me.store.get(record_id).source for record_id in record_ids} | {source or ""}
        if dry_run or not yes:
            with output.LateBar(quiet=as_json) as bar:
                found = me.store.would_forget(tuple(record_ids), source=source, progress=bar)
        if dry_run:
            _tell_found(found, as_json=as_json)
            return
        if not yes:
            ask(_question(found, me.user, source), yes=False)
        erased: list[ForgetReceipt] = []
        not_fitted: list[str] = []
        interrupted = False
        remain: BytesRemainError | None = None
        try:
            with output.LateBar(quiet=as_json) as bar:
                me.forget(tuple(record_ids), source=source, on_erased=erased.append, progress=bar)
        except BytesRemainError as err:
            remain = err
        except KeyboardInterrupt:
            if not erased:
                raise
            interrupted = True
        if remain or interrupted:
            not_fitted = [task for task in unfitted(me) if task in erased[0].tasks]
    receipt = erased[0]
    if as_json:
        missing = {"interrupted": True, "not_fitted": not_fitted} if interrupted else {}
        output.write_json(asdict(receipt) | missing | _error(remain))
    else:
        fitted = tuple(task for task in receipt.tasks if task not in not_fitted)
        _tell(replace(receipt, tasks=fitted), sources)
    if interrupted and not_fitted:
        output.note(f"Interrupted: {not_fitted_line(not_fitted, user)}")
    _fail(remain)
    if interrupted:
        raise typer.Exit(130)


def _question(found: ForgetReceipt, user: str, source: str | None) -> str:
    """Ask whether records are to go, with all that would go along."""
    records = found.records - found.repeats
    what = views.plural(records, "record")
    if source is not None:
        what = f"all {what} from {output.one_line(source)}"
    it = "it" if records == 1 else "them"
    made = [
        views.plural(count, *names)
        for count, names in (
            (found.repeats, ("answer you kept", "answers you kept")),
            (found.choices, ("choice",)),
            (found.pools, ("answer pool",)),
            (found.log_entries, ("log entry", "log entries")),
        )
        if count
    ]
    listed = " and ".join(filter(None, (", ".join(made[:-1]), *made[-1:])))
    along = f", and with {it} {listed} made with {it}" if made else ""
    return f"Erase {what} of {user} for good{along}?"


def _tell_found(found: ForgetReceipt, *, as_json: bool) -> None:
    """Say what would go, and that nothing did."""
    if as_json:
        output.write_json(asdict(found) | {"dry_run": True})
        return
    output.plain(views.receipt_line(found, dry_run=True))
    output.note("Nothing was erased.")


def _tell(receipt: ForgetReceipt, sources: Iterable[str]) -> None:
    """Say to people what was erased, and which imports would bring it back."""
    from hydra_edge.records import is_import

    output.plain(views.receipt_line(receipt))
    if again := sorted(name for name in sources if is_import(name)):
        names = ", ".join(output.one_line(name) for name in again)
        output.note(
            f"Importing {names} again brings them back: take them out there first, or import them "
            "and mark them private instead."
        )


def _forget_user(user: str | None, *, yes: bool, as_json: bool) -> None:
    """Remove a user's file without opening it, so that a damaged one can go too.

    And the tokens of the user's apps, or they would open what the next one of that name has. Those
    first: while the file is there, a stopped removal can be repeated. What cannot be done about
    them, as their file is damaged, keeps nothing from being forgotten.
    """
    from hydra_edge.server.tokens import TokenFiles, remove_apps_of
    from hydra_edge.store import Store

    config, paths = settings()
    name = config.user if user is None else user
    path = paths.user_file(name)
    if path.exists():
        ask(f"Erase everything about {name} ({path}) for good?", yes=yes)
    apps: list[str] = []
    left: ConfigError | None = None
    if path.exists():
        try:
            apps = remove_apps_of(TokenFiles.of(paths), name)
        except ConfigError as err:
            left = err
    Store.forget_user(path)
    if as_json:
        output.write_json({"user": name, "forgotten": True, "apps_removed": apps} | _error(left))
    else:
        tokens = f" The tokens of these apps open nothing any more: {', '.join(apps)}."
        output.plain(f"Forgotten: everything about {name}.{tokens if apps else ''}")
    _fail(left)


def register(app: typer.Typer) -> None:
    """Add the command; the others are those of ``history``."""
    put(
        app, "forget", forget,
        "hydra-edge forget 0f3a9c6d12b45e78 --dry-run",
        "hydra-edge forget 0f3a9c6d12b45e78",
        "hydra-edge forget --source git:/home/ada/src/project --yes",
        "hydra-edge forget --all --user ada",
    )  # fmt: skip
