"""History in: ``import`` and its sources, each a thin call of its importer."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from hydra_edge.cli import options, pruning
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.importchats import import_chatgpt, import_claude, import_slack
from hydra_edge.cli.importoptions import DryRun, Private, Task, given
from hydra_edge.cli.intake import run
from hydra_edge.paths import expanded

if TYPE_CHECKING:
    from hydra_edge.importers import ImportLog
    from hydra_edge.importers.mbox import Mode
    from hydra_edge.store import Store
    from hydra_edge.types import Record

LineTask = Annotated[
    str | None,
    options.task_option("Task of the records that name none themselves; default: general."),
]
InputColumn = Annotated[
    str, typer.Option("--input", metavar="NAME", help="Column that holds what was asked.")
]
OutputColumn = Annotated[
    str, typer.Option("--output", metavar="NAME", help="Column that holds what you wrote.")
]
IdColumn = Annotated[str, typer.Option("--id", metavar="NAME", help="Column of a stable id.")]
TimeColumn = Annotated[
    str,
    typer.Option(
        "--time", metavar="NAME", help='Column of unix seconds or ISO dates; "" if there is none.'
    ),
]


def _place(file: str) -> Path | TextIO:
    return sys.stdin if file == "-" else expanded(file)


def _columns(input_: str, output: str, id_: str, time: str) -> dict[str, str]:
    """Return the columns that are not called like their field: only those have to be there."""
    named = {"input": input_, "output": output, "id": id_, "time": time}
    return {field: column for field, column in named.items() if column != field}


def import_jsonl(
    ctx: typer.Context,
    file: options.InFile,
    user: options.User = None,
    task: LineTask = None,
    input_column: InputColumn = "input",
    output_column: OutputColumn = "output",
    id_column: IdColumn = "id",
    time_column: TimeColumn = "time",
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import JSON Lines: one object a line, with input and output.

    Also read are id, task, time and private; all other keys are ignored. A dotted name such as
    message.body reaches into nested objects.
    """
    from hydra_edge.importers import read_jsonl

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json, stream=file == "-")
    columns = _columns(input_column, output_column, id_column, time_column)
    extra = given(task=task, private=private)
    read = partial(read_jsonl, _place(file), columns=columns, **extra)
    run(
        ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, task=task,
        pruning=going,
    )  # fmt: skip


def import_csv(
    ctx: typer.Context,
    file: options.InFile,
    user: options.User = None,
    task: LineTask = None,
    input_column: InputColumn = "input",
    output_column: OutputColumn = "output",
    id_column: IdColumn = "id",
    time_column: TimeColumn = "time",
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import a table with a header line.

    Columns are separated by comma, semicolon, tab or bar; which, is found out.
    """
    from hydra_edge.importers import read_csv

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json, stream=file == "-")
    columns = _columns(input_column, output_column, id_column, time_column)
    extra = given(task=task, private=private)
    read = partial(read_csv, _place(file), columns=columns, **extra)
    run(
        ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, task=task,
        pruning=going,
    )  # fmt: skip


def import_git(
    ctx: typer.Context,
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="Repository, or a folder in one.")],
    author: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Part of a name or e-mail; default: your user.email."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="At most this many commits.")
    ] = None,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import your own commits: body -> subject line.

    New ones are private if you have private records of this repository, unless you say --public.
    """
    from hydra_edge.importers import read_git

    going = pruning.wanted(
        prune, yes, most, dry_run=dry_run, as_json=as_json, part="--limit" if limit else ""
    )

    def as_before(records: Iterable[Record], store: Store) -> Iterator[Record]:
        from hydra_edge import githook

        return githook.as_before(records, githook.Repository(repo, bare=True), store)

    extra = given(author=author, limit=limit, task=task, private=private)
    run(
        ctx, partial(read_git, expanded(repo), **extra), user=user, private=private,
        dry_run=dry_run, as_json=as_json, as_before=as_before if private is None else None,
        pruning=going,
    )  # fmt: skip


def import_mbox(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An mbox file.")],
    replies: Annotated[
        bool, typer.Option("--replies", help="Read mail -> your reply, not body -> subject.")
    ] = False,
    me: Annotated[
        str | None,
        typer.Option(
            "--me",
            metavar="ADDRESS",
            help="Your address, or a part of it; '*' is everybody's, for subjects only. Default: "
            "the only sender's.",
        ),
    ] = None,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import mail you wrote: body -> subject, or mail -> reply.

    Subjects are read from mails that begin a conversation: those of replies and forwards are
    somebody else's. Without --me the mail has to be one sender's. Its records are private unless
    you say --public.
    """
    from hydra_edge.importers.mbox import only_sender, read_mbox

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    if replies and me == "*":
        raise typer.BadParameter(
            "'*' is everybody's mail, whose replies are not yours; expected your address, or a "
            "part of it, with --replies.",
            param_hint="--me",
        )
    mode: Mode = "reply" if replies else "subject"
    extra = given(task=task, private=private)

    def read(log: ImportLog) -> Iterator[Record]:
        path = expanded(file)
        mine = None if me == "*" else me or only_sender(path, log, mode=mode)
        yield from read_mbox(path, log, mode=mode, me=mine, **extra)

    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)


def import_markdown(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of notes, any depth.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            help="Leave out notes, and folders with all in them, that match; may be repeated. A "
            "GLOB without / matches a name at any depth, one with / the path from FOLDER on. * and "
            "? match anything but /, a part ** any number of folders, [ab] a or b, [!ab] all else; "
            "a / at the end means folders only. Case counts.",
        ),
    ] = None,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import a folder of Markdown notes: text -> title.

    Give --exclude each time: nothing of it is remembered. With --prune, what it leaves out counts
    as not there.
    """
    from hydra_edge.importers import read_markdown

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    extra = given(task=task, private=private, exclude=exclude)
    read = partial(read_markdown, expanded(folder), **extra)
    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)


def import_lamp(
    ctx: typer.Context,
    questions: Annotated[Path, typer.Argument(metavar="QUESTIONS", help="Questions JSON.")],
    outputs: Annotated[
        Path | None, typer.Argument(metavar="OUTPUTS", help="Outputs JSON: names the task.")
    ] = None,
    person: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose profile, if the file holds several.")
    ] = None,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import one person's profile from the LaMP benchmark's JSON."""
    from hydra_edge.importers import read_lamp

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    extra = given(user=person, task=task, private=private)
    read = partial(read_lamp, expanded(questions), outputs and expanded(outputs), **extra)
    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_group(
        "Read your history from files, git, mail, notes or chats.",
        "hydra-edge import git ~/src/project",
        "hydra-edge import csv papers.csv --input abstract --output title -t paper_title",
        "hydra-edge import claude export.zip",
    )
    put(
        group, "jsonl", import_jsonl,
        "hydra-edge import jsonl history.jsonl --user me",
        "zcat posts.jsonl.gz | hydra-edge import jsonl - --input body --output title",
    )  # fmt: skip
    put(
        group, "csv", import_csv,
        "hydra-edge import csv papers.csv --input abstract --output title -t paper_title",
    )  # fmt: skip
    put(
        group, "git", import_git,
        "hydra-edge import git ~/src/project",
        "hydra-edge import git . --author ada@example.org --dry-run",
    )  # fmt: skip
    put(
        group, "mbox", import_mbox,
        "hydra-edge import mbox Sent --me ada@example.org",
        "hydra-edge import mbox All.mbox --replies --me ada@example.org",
    )  # fmt: skip
    put(
        group, "markdown", import_markdown,
        "hydra-edge import markdown ~/notes",
        "hydra-edge import markdown ~/notes --exclude 'templates/*' --exclude '*.draft.md'",
        "hydra-edge import markdown ~/notes --prune --dry-run",
    )  # fmt: skip
    put(group, "chatgpt", import_chatgpt, "hydra-edge import chatgpt export.zip --dry-run")
    put(
        group, "claude", import_claude,
        "hydra-edge import claude data-2026-01-31.zip --dry-run",
        "hydra-edge import claude conversations.json --prune",
    )  # fmt: skip
    put(
        group, "slack", import_slack,
        "hydra-edge import slack workspace.zip --me ada@example.org --dry-run",
        "hydra-edge import slack workspace.zip --me 'Ada Lovelace'",
    )  # fmt: skip
    put(
        group, "lamp", import_lamp,
        "hydra-edge import lamp dev_questions.json dev_outputs.json --person 310",
    )  # fmt: skip
    app.add_typer(group, name="import")
