"""Kinds of query: ``tasks``, to see them, to find their files, and to give one another name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.named import apps_let_in, still_named
from hydra_edge.cli.session import ask, open_user, record_counts, task_spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hydra_edge.cli.named import Place
    from hydra_edge.types import JsonDict, RenameReceipt


def _inferred_kinds(ctx: typer.Context, user: str | None, names: Iterable[str]) -> dict[str, str]:
    """Return the kinds of tasks that only the user's answers tell."""
    from hydra_edge.tasks import infer_task

    names = list(names)
    if not names:
        return {}
    with open_user(ctx, user) as me:
        return {n: infer_task(n, [r.output for r in me.store.records(task=n)]).kind for n in names}


def list_tasks(
    ctx: typer.Context, user: options.User = None, as_json: options.AsJson = False
) -> None:
    """List the tasks built in, described by you, or in use."""
    from hydra_edge.paths import find_paths
    from hydra_edge.taskfile import read_task_dir
    from hydra_edge.tasks import BUILTIN

    counts = record_counts(ctx, user)
    custom = read_task_dir(find_paths().tasks)
    known = BUILTIN | custom
    # One whose own file is broken is no task to infer.
    kinds = _inferred_kinds(ctx, user, counts.keys() - known.keys() - custom.broken.keys())
    rows = []
    for name in sorted(known.keys() | counts.keys(), key=lambda name: (-counts.get(name, 0), name)):
        spec = known.get(name)
        origin = "yours" if name in custom else "built in" if spec else "inferred"
        rows.append(
            {
                "task": name,
                "records": counts.get(name, 0),
                "kind": spec.kind if spec else kinds.get(name),
                "origin": origin,
                "instruction": spec.instruction if spec else "",
            }
        )
    if as_json:
        output.write_json({"tasks": rows})
        return
    output.table(
        ("task", "records", "kind", "origin", "instruction"),
        [tuple("-" if cell is None else str(cell) for cell in row.values()) for row in rows],
    )
    for err in custom.broken.values():
        output.note(str(err), style="yellow")


def show_task(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task.")],
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how a task is put to an LLM.

    Its answer set is shown as your history completes it.
    """
    fields: JsonDict = asdict(task_spec(ctx, name, user))
    if as_json:
        output.write_json(fields)
        return
    for field, value in fields.items():
        text = ", ".join(value) if isinstance(value, tuple) else _text(value)
        output.plain(f"{field} = {output.one_line(text)}")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def tasks_path() -> None:
    """Print the folder of your own task files.

    One NAME.toml describes one task; the folder need not exist.
    """
    from hydra_edge.paths import find_paths

    output.answer(str(find_paths().tasks))


def rename_task(
    ctx: typer.Context,
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name of a task you have.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    user: options.User = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Make one task of both if NEW has records, too.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Give a task another name, with all that was learned of it.

    Its records, choices, bought answers, log and heads get the new name, and so does its task
    file. Where the old name still stands (settings, apps, hooks) is said: change it there.
    """
    with open_user(ctx, user) as me:
        plan = me.rename_task(old, new, merge=merge, dry_run=True)
        let_in = apps_let_in(plan.old, plan.new, me.user)
        seen = f"; {', '.join(let_in)} may use them then, by their tokens" if let_in else ""
        ask(f"Rename {plan.old} of {me.user} to {plan.new}: {_counts(plan)}{seen}?", yes=yes)
        sources = [name for name in me.store.sources() if me.store.count(plan.old, source=name)]
        with Interrupt("Stopping once the task is renamed") as stop:
            receipt = me.rename_task(old, new, merge=merge)
        still = still_named(receipt, me.user, sources)
    if as_json:
        places = [asdict(place) for place in still]
        output.write_json(asdict(receipt) | {"still_named": places, "apps_let_in": let_in})
    else:
        _tell(receipt, let_in, still, merge=merge, user=user)
    if stop.wanted:
        raise typer.Exit(130)


def _tell(
    receipt: RenameReceipt,
    let_in: list[str],
    still: list[Place],
    *,
    merge: bool,
    user: str | None,
) -> None:
    """Say what was renamed, and what is left to do."""
    output.plain(f"{receipt.old} is {receipt.new} now: {_counts(receipt)}")
    if let_in:
        output.note(
            f"By their tokens these apps may use it now: {', '.join(let_in)}", style="yellow"
        )
    if receipt.task_file:
        output.note(f"Described in {receipt.task_file}")
    if receipt.kept_file:
        why = "others may need it" if receipt.task_file else f"{receipt.new} has one of its own"
        output.note(f"{receipt.kept_file} stays, as {why}.", style="yellow")
    for place in still:
        where = f"{receipt.old} is still named by {place.where}"
        output.note(f"{where}: {place.change}", style="yellow")
    if receipt.outdated or (merge and receipt.heads):
        why = "Its heads do not serve under that name" if receipt.outdated else "Two became one"
        output.note(f"{why}. Next: {options.command('fit-head', task=receipt.new, user=user)}")


def _counts(receipt: RenameReceipt) -> str:
    counts = (
        views.plural(receipt.records, "record"),
        views.plural(receipt.choices, "choice"),
        views.plural(receipt.pools, "answer pool"),
        views.plural(receipt.log_entries, "log entry", "log entries"),
        views.plural(receipt.heads, "head"),
    )
    return ", ".join(counts)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    tasks = new_group(
        "See, rename and describe the kinds of query.",
        "hydra-edge tasks list",
        "hydra-edge tasks show commit_subject",
    )
    put(tasks, "list", list_tasks, "hydra-edge tasks list --user ada")
    put(tasks, "show", show_task, "hydra-edge tasks show movie_tag")
    put(
        tasks, "rename", rename_task,
        "hydra-edge tasks rename garden_title plant_title",
        "hydra-edge tasks rename my_tag tag --merge --yes",
    )  # fmt: skip
    put(tasks, "path", tasks_path, 'ls "$(hydra-edge tasks path)"')
    app.add_typer(tasks, name="tasks")
