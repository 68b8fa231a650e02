"""Looking at what was learned: ``heads``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.files import read_text, write_text
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.session import open_user
from hydra_edge.errors import HydraError
from hydra_edge.forms import report_rows
from hydra_edge.headreport import reason_of, taught_by
from hydra_edge.reasons import in_words

if TYPE_CHECKING:
    from hydra_edge.engine import Engine
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.portrait import Weight
    from hydra_edge.types import HeadInfo, HeadState, JsonDict

WEIGHTS_SHOWN = 8

RoleName = Literal["reranker", "adapter"]
OneRole = Annotated[
    RoleName, typer.Option("--role", "-r", help="Records to show, or answer to give.")
]
AnyRole = Annotated[
    RoleName | None, typer.Option("--role", "-r", help="Only this one; default: both.")
]


def _weights(me: Personalizer, state: HeadState) -> list[Weight]:
    """Return a head's weights, those furthest from the population's first."""
    from hydra_edge import portrait

    weights = portrait.weights(me.engine, me.task(state.task), state.role, state)
    return sorted(weights, key=lambda weight: -abs(weight.moved))


def _head_json(state: HeadState, *, current: bool) -> JsonDict:
    return {
        "task": state.task,
        "role": state.role,
        "version": state.version,
        "current": current,
        "created": state.created,
        "switch": state.switch,
        "n_queries": state.n_queries,
        "prior_scale": state.prior_scale,
        "base_id": state.base_id,
        "stale": state.stale,
        "report": state.report,
    }


def _is_current(me: Personalizer, state: HeadState) -> bool:
    current = me.store.head(state.task, state.role)
    return current is not None and current.version == state.version


def why_idle(engine: Engine | None, states: Sequence[HeadState]) -> list[str]:
    """Say of each head what keeps it from serving; empty if nothing does.

    Without an engine, for want of a base, only what is written of the heads themselves.
    """
    from hydra_edge.active import outdated

    if engine is None:
        return [outdated(state, None) for state in states]
    kinds: dict[str, str] = {}
    for name in {state.task for state in states}:
        with suppress(HydraError):  # a task nobody knows any more, or whose file is broken
            kinds[name] = engine.task(name).kind
    return [outdated(state, engine.bundle, kinds.get(state.task, "")) for state in states]


def rollback_command(task: str, role: str, user: str | None) -> str:
    """Return the command that goes back to the version before."""
    return options.command("heads", "rollback", task=task, role=role, user=user)


def list_heads(
    ctx: typer.Context,
    user: options.User = None,
    task: options.Task = None,
    as_json: options.AsJson = False,
) -> None:
    """List all versions of your heads; * marks those in use."""
    from hydra_edge.tasks import canonical_name

    with open_user(ctx, user) as me:
        states = me.store.heads(canonical_name(task) if task else None)
        if task and not states:
            me.task(task)  # refuses a name nobody knows
        engine = None
        with suppress(HydraError):  # what is wrong with the base is for `doctor` to say
            engine = me.engine if states else None
        idle = why_idle(engine, states)
        listed = [(s, _is_current(me, s), why) for s, why in zip(states, idle, strict=True)]
    if as_json:
        heads = [_head_json(s, current=c) | {"outdated": why} for s, c, why in listed]
        output.write_json({"heads": heads})
        return
    rows = [
        (
            state.task,
            state.role,
            f"v{state.version}{'*' if current else ''}",
            views.when(state.created),
            str(state.n_queries),
            state.switch + (f", outdated: {why}" if why else ""),
        )
        for state, current, why in listed
    ]
    output.table(("task", "role", "version", "fitted", "queries", "switched on"), rows)
    if not rows:
        output.note("No heads yet: the shared head serves. Next: hydra-edge fit-head")
    if any(current and why for _, current, why in listed):
        output.note("Outdated heads do not serve. Next: hydra-edge fit-head", style="yellow")


def show_head(
    ctx: typer.Context,
    user: options.User = None,
    task: options.Task = None,
    role: AnyRole = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the report of a head, and its largest weights.

    Listed are the weights furthest from the population's.
    """
    roles: Iterable[RoleName] = (role,) if role else ("reranker", "adapter")
    shown = []
    with open_user(ctx, user) as me:
        name = me.task(task).name
        kept = [s for s in me.store.heads(name) if s.role in roles and not s.stale]
        for one in roles:
            state = me.store.head(name, one)
            if state is not None:
                (why,) = why_idle(me.engine, [state])
                shown.append((state, why, _weights(me, state)))
    if as_json:
        heads = [
            _head_json(state, current=True)
            | {"outdated": why}
            | {"weights": {w.feature: {"mine": w.mine, "population": w.population} for w in ws}}
            for state, why, ws in shown
        ]
        output.write_json({"heads": heads})
        return
    for state, why, weights in shown:
        _write_head(state, why, weights)
    if shown:
        return
    what = role or "head"
    if kept:
        versions = ", ".join(f"{state.role} v{state.version}" for state in kept)
        again = options.command(
            "heads", "rollback", "--role", role or "ROLE", "--version", "N", task=name, user=user
        )
        output.note(
            f"No {what} of your own for {name} is in use: the shared one serves. Kept: {versions}; "
            f"{again} takes one of them again"
        )
    else:
        output.note(f"No {what} for {name} yet: the shared one serves. Next: hydra-edge fit-head")


def _write_head(state: HeadState, why_idle: str, weights: list[Weight]) -> None:
    outdated = f", outdated: {why_idle}; fit again" if why_idle else ""
    output.heading(f"{state.task} {state.role} v{state.version} ({state.switch}{outdated})")
    model = taught_by(state)
    output.plain(
        f"  fitted {views.when(state.created)} on "
        f"{views.plural(state.n_queries, 'query', 'queries')}"
        f"{f', answers of {model}' if model else ''}, "
        f"base {state.base_id[:12]}, prior strength {state.prior_scale:g}"
    )
    if reason := reason_of(state.report):
        output.plain(f"  {output.one_line(str(reason))}")
    rows = [
        (row["name"], views.figure(row["utility"], 3), views.figure(row["n"], 0), row["note"])
        for row in report_rows(state.report)
    ]
    if rows:
        output.table(("way to answer", "utility", "n", ""), rows, indent=2)
    lines = [
        (w.feature, f"{w.mine:+.3f}", f"{w.population:+.3f}", in_words(w.feature, state.role))
        for w in weights[:WEIGHTS_SHOWN]
    ]
    output.table(("feature", "mine", "population", "what it means"), lines, indent=2)


def roll_back(
    ctx: typer.Context,
    role: OneRole,
    user: options.User = None,
    task: options.Task = None,
    version: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Which; default: the one before.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Use another version of a head; later ones are kept.

    Before the first there was none: to go back from it leaves you with no head of your own, and
    the shared one serves.
    """
    with open_user(ctx, user) as me:
        spec = me.task(task)
        state = me.store.rollback_head(spec.name, role, version)
        info = me.engine.active(spec, role).info
    if state is None:
        _write_none(info, as_json=as_json)
        return
    if as_json:
        output.write_json(_head_json(state, current=True))
        return
    output.plain(f"{state.task} {state.role}: now v{state.version} ({state.switch})")
    if info.version is None:  # another base is in use by now
        output.note(info.reason, style="yellow")


def _write_none(info: HeadInfo, *, as_json: bool) -> None:
    """Say that no head of one's own is in use, in the same JSON as a head."""
    if as_json:
        output.write_json({
            "task": info.task, "role": info.role, "version": None, "current": False,
            "created": None, "switch": info.switch, "n_queries": 0, "prior_scale": None,
            "base_id": info.base_id, "stale": False, "report": {},
        })  # fmt: skip
        return
    output.plain(f"{info.task} {info.role}: no head of your own any more ({info.switch})")
    output.note("Those there were are kept; --version N takes one of them again")


def export_head(
    ctx: typer.Context,
    role: OneRole,
    file: options.OutFile = "-",
    user: options.User = None,
    task: options.Task = None,
    force: options.Force = False,
) -> None:
    """Write a head as JSON; it holds no text of yours."""
    with open_user(ctx, user) as me:
        text = me.export_head(task, role)
    write_text(file, [text, "\n"], force=force)


def import_head(
    ctx: typer.Context,
    file: options.InFile,
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Take over a head exported elsewhere, as the newest version.

    It serves at once, as the file says: it is meant for your own head from another device.
    """
    text = read_text(file)
    with open_user(ctx, user, create=True) as me:
        state = me.import_head(text)
    if as_json:
        output.write_json(_head_json(state, current=True))
        return
    output.plain(f"{state.task} {state.role}: now v{state.version} ({state.switch})")
    output.note(
        f"It serves as the file says ({state.switch}), whether it helps you or not. To take it "
        f"back: {rollback_command(state.task, state.role, user)}"
    )


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_group(
        "See what was learned, go back, or take it elsewhere.",
        "hydra-edge heads show --task commit_subject",
        "hydra-edge heads rollback --role adapter",
    )
    put(group, "list", list_heads, "hydra-edge heads list")
    put(group, "show", show_head, "hydra-edge heads show --task commit_subject --role reranker")
    put(group, "rollback", roll_back, "hydra-edge heads rollback --role adapter --version 3")
    put(group, "export", export_head, "hydra-edge heads export head.json --role adapter")
    put(group, "import", import_head, "hydra-edge heads import head.json --user me")
    app.add_typer(group, name="heads")
