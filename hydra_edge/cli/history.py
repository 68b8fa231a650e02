"""Looking at one's history, and taking it elsewhere: ``history``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import backups, forgetting, options, output, views
from hydra_edge.cli.files import write_text
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.session import open_user
from hydra_edge.errors import HydraError, RecordNotFoundError, UnknownTaskError
from hydra_edge.forms import record_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hydra_edge.store import Store
    from hydra_edge.types import Record

OfTask = Annotated[str | None, options.task_option("Only of this task.")]
OfSource = Annotated[
    str | None, typer.Option("--source", metavar="SOURCE", help="Only from this source.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many.")]


def _task_name(task: str | None) -> str | None:
    from hydra_edge.tasks import canonical_name

    return canonical_name(task) if task else None


def _write_records(records: Sequence[Record], *, as_json: bool, total: int | None = None) -> None:
    if as_json:
        shown = [record_json(record) for record in records]
        output.write_json({"records": shown} | ({} if total is None else {"total": total}))
        return
    rows = [
        (
            record.id,  # whole, or no other command would know it
            views.when(record.time),
            record.task + (" (private)" if record.private else ""),
            f"{output.one_line(record.output, 60)}  <-  {output.one_line(record.input, 60)}",
        )
        for record in records
    ]
    output.table(("id", "time", "task", "output  <-  input"), rows)


def list_records(
    ctx: typer.Context,
    user: options.User = None,
    task: OfTask = None,
    source: OfSource = None,
    limit: Limit = 20,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="Leave out the newest N.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """List records, the newest first."""
    with open_user(ctx, user) as me:
        name = _task_name(task)
        records = me.store.records(
            task=name, source=source, limit=limit, offset=offset, newest_first=True
        )
        total = me.store.count(name, source=source)
        if not total and (name or source is not None):
            raise _no_records(me.store, name, source)
    _write_records(records, as_json=as_json, total=total)
    if not as_json:
        output.note(f"{len(records)} shown of {views.plural(total, 'record')}")


def show_record(
    ctx: typer.Context,
    record_id: Annotated[str, typer.Argument(metavar="RECORD_ID", help="Id of a record.")],
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Show one record in full."""
    with open_user(ctx, user) as me:
        record = me.store.get(record_id)
    if as_json:
        output.write_json(record_json(record))
        return
    private = "  private" if record.private else ""
    output.plain(f"{record.id}  {record.task}  {views.when(record.time)}{private}")
    output.plain(f"from {output.one_line(record.source) or 'an unknown source'}")
    output.heading("input")
    output.answer(record.input)
    output.heading("output")
    output.answer(record.output)


def list_answers(
    ctx: typer.Context,
    user: options.User = None,
    task: OfTask = None,
    limit: Limit = 20,
    with_private: Annotated[
        bool,
        typer.Option("--with-private", help="Also answers that private records had a part in."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """List the answers given that are remembered, the newest first.

    With the number of the candidate that you took, if you chose one. Answers that name a private
    record, or hold its text, are left out. `choose --id ID` lists the candidates of one;
    `clear-log` erases all, or with --id ID one.
    """
    with open_user(ctx, user) as me:
        name = _task_name(task)
        found, hidden = me.store.generations(task=name, limit=limit, with_private=with_private)
        taken = [me.store.choice(entry.id) for entry in found]
        total = me.store.generation_count(name)
        logs = me.config.log
    if as_json:
        shown = [
            views.logged_json(entry) | views.taken_json(choice)
            for entry, choice in zip(found, taken, strict=True)
        ]
        output.write_json({"answers": shown, "total": total, "left_out": hidden})
        return
    rows = [
        (
            entry.id,
            views.when(entry.time),
            entry.task,
            views.taken(choice),
            f"{output.one_line(entry.query, 60)}  ->  {output.one_line(entry.text, 60)}",
        )
        for entry, choice in zip(found, taken, strict=True)
    ]
    output.table(("id", "time", "task", "you took", "query  ->  answer"), rows)
    private = f"; {hidden} of private records left out (--with-private)" if hidden else ""
    output.note(f"{len(found)} shown of {views.plural(total, 'answer')}{private}")
    if not logs:
        output.note("The setting `log` is off: no answer is remembered now.")


def search_records(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="WORDS", help="Words to look for.")],
    user: options.User = None,
    task: OfTask = None,
    limit: Limit = 20,
    as_json: options.AsJson = False,
) -> None:
    """Find records by words of their texts, best first."""
    with open_user(ctx, user) as me:
        found = me.store.search(options.clean(query), task=_task_name(task), limit=limit)
    _write_records(found, as_json=as_json)
    if not as_json:
        output.note(f"{views.plural(len(found), 'record')} found")


def _json_line(record: Record) -> str:
    line = json.dumps(record_json(record), ensure_ascii=False) + "\n"
    # What UTF-8 cannot hold (lone surrogates) becomes the JSON escape of the same.
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


def _no_records(store: Store, task: str | None, source: str | None) -> HydraError:
    """Say that no record is of a task and a source, and which there are."""
    if source is not None and source not in store.sources():
        return RecordNotFoundError(
            f"No record comes from {source!r}; sources: {', '.join(store.sources()) or 'none yet'}."
        )
    if task and task not in store.tasks():
        return UnknownTaskError(
            f"No record of task {task!r}; tasks: {', '.join(store.tasks()) or 'none yet'}."
        )
    return RecordNotFoundError(
        f"No record of task {task!r} comes from {source!r}. Leave --task or --source out."
    )


def export_records(
    ctx: typer.Context,
    file: options.OutFile = "-",
    user: options.User = None,
    task: OfTask = None,
    source: OfSource = None,
    force: options.Force = False,
) -> None:
    """Write records as JSON Lines, for `import jsonl`.

    Oldest first. Everything a record holds is written; what reads it back notes the file as
    its source, and places records without a time where they are imported.
    """
    with open_user(ctx, user) as me:
        name = _task_name(task)
        records = me.store.records(task=name, source=source)
        if not records and (name or source is not None):
            raise _no_records(me.store, name, source)
    write_text(file, (_json_line(record) for record in records), force=force)
    output.note(f"{views.plural(len(records), 'record')} exported")


def list_sources(
    ctx: typer.Context, user: options.User = None, as_json: options.AsJson = False
) -> None:
    """List where your records came from."""
    with open_user(ctx, user) as me:
        sources = me.store.sources()
    if as_json:
        output.write_json({"sources": sources})
        return
    output.table(("records", "source"), [(str(n), name) for name, n in sources.items()])


def mark_private(
    ctx: typer.Context,
    record_ids: options.RecordIds = None,
    source: options.WholeSource = None,
    off: Annotated[bool, typer.Option("--off", help="Let remote LLMs see them again.")] = False,
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Keep records from ever being shown to a remote LLM.

    Other records of the very same text become private with them (not those of apps, nor answers
    you kept), and answers you kept that were made from them; --off changes only those named.
    """
    if bool(record_ids) == (source is not None):
        raise typer.BadParameter("expected ids of records, or --source.", param_hint="RECORD_ID")
    with open_user(ctx, user) as me, me.store.together():
        if source is not None and not (found := me.store.records(source=source)):
            raise _no_records(me.store, None, source)
        names = record_ids or [record.id for record in found]
        changed = me.store.set_private(names, not off)
    if as_json:
        output.write_json({"changed": changed})
        return
    output.plain(f"{views.plural(changed, 'record')} now {'public' if off else 'private'}")


def reindex(ctx: typer.Context, user: options.User = None, as_json: options.AsJson = False) -> None:
    """Make a damaged search index anew.

    `doctor` tells whether it is; your records hold all it is made of.
    """
    with open_user(ctx, user) as me:
        indexed = me.store.reindex()
    if as_json:
        output.write_json({"indexed": indexed})
        return
    output.plain(f"{views.plural(indexed, 'record')} indexed")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_group(
        "Look at your history, mark it, take it elsewhere.",
        "hydra-edge history list --task commit_subject",
        "hydra-edge history export records.jsonl",
    )
    put(group, "list", list_records, "hydra-edge history list --task commit_subject --limit 50")
    put(group, "show", show_record, "hydra-edge history show 0f3a9c6d12b45e78")
    put(group, "search", search_records, 'hydra-edge history search "parser empty file"')
    put(
        group, "log", list_answers,
        "hydra-edge history log",
        "hydra-edge history log --task commit_subject --limit 5 --json",
    )  # fmt: skip
    put(group, "sources", list_sources, "hydra-edge history sources")
    put(
        group, "export", export_records,
        "hydra-edge history export records.jsonl",
        "hydra-edge history export --task paper_title | gzip > titles.jsonl.gz",
    )  # fmt: skip
    put(
        group, "backup", backups.back_up,
        "hydra-edge history backup me-backup.db",
        "hydra-edge history backup me-backup.db --force",
    )  # fmt: skip
    put(
        group, "restore", backups.restore,
        "hydra-edge history restore me-backup.db --dry-run",
        "hydra-edge history restore me-backup.db --user ada",
    )  # fmt: skip
    put(
        group, "private", mark_private,
        "hydra-edge history private 0f3a9c6d12b45e78",
        "hydra-edge history private 0f3a9c6d12b45e78 --off",
        "hydra-edge history private --source mbox:/home/ada/mail/sent.mbox",
    )  # fmt: skip
    put(group, "delete", forgetting.delete_records, "hydra-edge history delete 0f3a9c6d12b45e78")
    put(group, "reindex", reindex, "hydra-edge history reindex")
    put(
        group, "clear-log", forgetting.clear_log,
        "hydra-edge history clear-log --yes",
        "hydra-edge history clear-log --choices --before 2026-01-31",
        "hydra-edge history clear-log --id dcf0a585c610",
    )  # fmt: skip
    app.add_typer(group, name="history")
