"""Teaching: ``add`` one record by hand, and ``fit-head``."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.group import put
from hydra_edge.cli.heads import rollback_command
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.session import ask, open_user
from hydra_edge.cli.taskwatch import TaskWatch, not_dated
from hydra_edge.errors import CancelledError, HydraError, UnknownModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import FitReport, Record, Role

_COMPARISONS = 2  # answers a record may take beside its candidates: with no records, and by BM25


def add(
    ctx: typer.Context,
    input_text: Annotated[str, typer.Argument(metavar="INPUT", help="What was asked.")],
    output_text: Annotated[str, typer.Argument(metavar="OUTPUT", help="What you wrote.")],
    user: options.User = None,
    task: options.RecordTask = None,
    private: Annotated[
        bool, typer.Option("--private", help="Never show it to a remote LLM.")
    ] = False,
    moment: Annotated[
        str | None,
        typer.Option("--time", metavar="TIME", help="Unix seconds or ISO date; default: now."),
    ] = None,
    record_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Its id; default: one made from its texts.")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Add one record to your history (0 LLM calls)."""
    from hydra_edge.importers.base import parse_name, parse_time
    from hydra_edge.records import AssumedTime, clean_text, stored_id
    from hydra_edge.store.times import is_ahead
    from hydra_edge.tasks import canonical_name
    from hydra_edge.types import DEFAULT_TASK, Record

    given = {"INPUT": input_text, "OUTPUT": output_text}
    texts = {name: clean_text(options.clean(text)) for name, text in given.items()}
    for name, text in texts.items():
        if not text.strip():
            raise typer.BadParameter("is empty; expected text.", param_hint=name)
    try:
        when = AssumedTime(time.time()) if moment is None else parse_time(moment)
        name = parse_name(record_id, "id")
    except ValueError as err:
        raise typer.BadParameter(f"{err}.", param_hint="--time or --id") from err
    with open_user(ctx, user, create=True) as me:
        record = Record(
            input=texts["INPUT"],
            output=texts["OUTPUT"],
            task=canonical_name(task or me.config.task or DEFAULT_TASK),
            id=name,
            time=when,
            private=private,
            source="add",
        )
        record = replace(record, id=stored_id(record))
        watch = TaskWatch(me.store)
        result = me.add(watch.passing([record]))
        remarks = watch.notes(user) + not_dated(is_ahead(record))
        stored = _id_it_got(me, record)
    for remark in remarks:
        output.note(remark, style="yellow")
    if as_json:
        output.write_json({"id": stored, **asdict(result), "llm_calls": 0})
        return
    output.answer(stored)
    done = "added" if result.added else "updated" if result.updated else "was there already"
    output.note(f"{record.task}: {done}; 0 LLM calls")


def _id_it_got(me: Personalizer, record: Record) -> str:
    """Return the id a record got: the one asked for, unless another record had it."""
    texts = (record.input, record.output)
    found = me.store.find(record.id)
    if found is not None and (found.input, found.output) == texts:
        return found.id  # else who had it may have gone, and left this one beside
    alike = me.store.records(task=record.task)
    return next(r.id for r in alike if (r.input, r.output) == texts and r.id.startswith(record.id))


def _tasks(me: Personalizer, task: str | None, user: str | None) -> list[str]:
    """Return the tasks to fit: the one named, else all present, the largest first."""
    if task:
        return [task]
    counts = me.store.tasks()
    if not counts:
        taught = dict.fromkeys(head.task for head in me.store.heads())  # imported, or by choices
        serves = "" if taught else ": the shared head serves"
        output.note(f"No records yet{serves}. Next: hydra-edge import --help")
        for name in taught:
            _note_kept(me, name, ("reranker", "adapter"), user)
    return sorted(counts, key=lambda name: -counts[name])


def _why_nothing(me: Personalizer, tasks: list[str], calls: int | None) -> str:
    """Say why an LLM would be sent no prompt."""
    if calls is None and me.llm.is_remote:
        many = 10 * me.config.candidates
        count = sum(len(me.fit_prompts(task, calls=many)) for task in tasks)
        if count:
            return (
                f"nothing is sent: {me.llm.name} is remote and is asked nothing without --calls; "
                f"with --calls {many} it would be sent {_at_most(count)}, printed here then"
            )
    enough = me.config.candidates + _COMPARISONS
    few = calls is not None and calls < enough
    if few and any(me.fit_prompts(task, calls=enough) for task in tasks):
        return (
            f"nothing is sent: one record takes up to {enough} answers, more than the {calls} "
            f"allowed; give --calls {enough} or more"
        )
    from hydra_edge.evidence import POOLS

    never = "; private ones are never sent" if me.llm.is_remote else ""
    more = any(me.store.count(task) > POOLS for task in tasks)
    among = f" among the latest {POOLS}, all that a fit looks at" if more else ""
    return f"nothing is sent: there is no record left to ask about{among}{never}"


def _prompts(me: Personalizer, tasks: list[str], calls: int | None) -> list[str]:
    """Return what an LLM would be sent; the first time this embeds the records."""
    with output.LateBar() as bar:
        return [p for name in tasks for p in me.fit_prompts(name, calls=calls, progress=bar)]


def _at_most(count: int) -> str:
    return f"at most {views.plural(count, 'prompt')}"


def _check_budget(me: Personalizer, calls: int | None, budget_s: float | None) -> None:
    """Refuse what no fit would take, before anything is shown or asked."""
    from hydra_edge.buying import Budget
    from hydra_edge.fitting import check_budget

    check_budget(Budget(calls, budget_s), me.llm)


def _consent(
    me: Personalizer, tasks: list[str], calls: int | None, budget_s: float | None, *, yes: bool
) -> str:
    """Ask before records are sent to a remote LLM for fitting.

    Returns
    -------
    str
        Why none would be, and nobody was asked; else empty.
    """
    try:
        llm = me.llm
    except UnknownModelError:  # no LLM: the fit itself says so, or refuses
        return ""
    if not llm.is_remote:
        return ""
    _check_budget(me, calls, budget_s)
    count = len(_prompts(me, tasks, calls))
    if not count:
        return _why_nothing(me, tasks, calls)
    host = urlsplit(me.config.base_url).hostname or me.config.base_url
    name = llm.name if host in llm.name else f"{llm.name} at {host}"
    ask(
        f"{name} would be sent {_at_most(count)} that quote "
        "your records (private ones never), once for the LLM's first answer and once for all "
        "others. --dry-run prints them. Send?",
        yes=yes,
    )
    return ""


def _dry_run(
    me: Personalizer,
    tasks: list[str],
    calls: int | None,
    budget_s: float | None,
    *,
    use_llm: bool,
    as_json: bool,
) -> None:
    """Print what a fit would send."""
    if not use_llm:
        views.write_prompts((), as_json=as_json)
        output.note("With --no-llm no LLM is asked.")
        return
    _check_budget(me, calls, budget_s)
    prompts = _prompts(me, tasks, calls)
    # What a task does not spend of the calls is left to the next, each seems to have them all.
    views.write_prompts(prompts, as_json=as_json, at_most=calls is not None)
    if tasks and not prompts:
        output.note(_why_nothing(me, tasks, calls))
    elif prompts and calls is None:
        output.note("These are the first: a local LLM is asked as many as it has time for.")


def _note_kept(me: Personalizer, task: str, roles: Iterable[Role], user: str | None) -> None:
    """Say how to go back from heads in use that could not be fitted again."""
    for role in roles:
        if state := me.store.head(task, role):
            output.note(
                f"To take back v{state.version} of the {role} for {task}: "
                f"{rollback_command(task, role, user)}"
            )


def _fit(
    me: Personalizer,
    tasks: list[str],
    calls: int | None,
    budget_s: float | None,
    *,
    user: str | None,
    use_llm: bool,
    as_json: bool,
    stop: Interrupt,
    remark: str,
) -> Iterator[FitReport]:
    """Fit one task after another under one budget for all of them, until told to stop.

    Each task gets its part of what is left, so that those before it do not take it all. A remark
    that is not empty is put to the notes of each report.
    """
    least = me.config.candidates + _COMPARISONS  # fewer answers might not do for a single record
    allowed_calls, allowed_s = calls, budget_s
    for position, name in enumerate(tasks, start=1):
        to_come = len(tasks) - position + 1
        with output.progress(quiet=as_json) as bar:
            report = me.fit_head(
                name,
                calls=None if calls is None else min(calls, max(calls // to_come, least)),
                budget_s=None if budget_s is None else budget_s / to_come,
                use_llm=use_llm,
                progress=bar,
                should_stop=stop,
            )
        if remark:
            report = replace(report, notes=(*report.notes, remark))
        # What is left of the answers may be too few for a record, though it is not nothing.
        no_answers = calls is not None and calls < min(allowed_calls or 0, least)
        if not report.llm_calls and (no_answers or (allowed_s and not budget_s)):
            what = "answers allowed were" if no_answers else "time allowed was"
            again = options.command("fit-head", task=name, user=user)
            why = f"the {what} used up before this task: {again}"
            report = replace(report, notes=(*report.notes, why))
        yield report
        if calls is not None:
            calls = max(0, calls - report.llm_calls)
        if budget_s is not None:  # the LLM's time alone: embedding and fitting are not in it
            budget_s = max(0.0, budget_s - report.llm_seconds)
        if not as_json:
            views.write_fit(report)
            sys.stdout.flush()
            unfitted = (role.role for role in report.roles if role.version is None)
            _note_kept(me, report.task, unfitted, user)
        if stop.wanted:
            if left := tasks[position:]:
                output.note(f"Not fitted: {', '.join(left)}.")
            return


def fit_head(
    ctx: typer.Context,
    user: options.User = None,
    task: Annotated[str | None, options.task_option("Fit this one; default: all you have.")] = None,
    calls: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Answers that may be asked of the LLM, in all."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Ask the LLM about no further record after so long, in all: 60s, 2m, 500ms; a "
            "remote one needs --calls, too.",
        ),
    ] = None,
    no_llm: Annotated[bool, typer.Option("--no-llm", help="Ask no LLM.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the prompts it would send; send nothing.")
    ] = False,
    yes: options.Yes = False,
    model: options.Model = None,
    base_url: options.BaseUrl = None,
    offline: options.Offline = False,
    as_json: options.AsJson = False,
) -> None:
    """Learn your heads and switch on what helps.

    They are judged on your own held-out history. Choosing records needs no LLM. With one,
    sampled answers teach which answer to give; they are kept, so that stopping and starting
    again pays for none twice. Ctrl-C asks no more and fits on what there is; a second one ends
    at once.
    """
    budget_s = options.seconds(budget, "--budget")
    reports: list[FitReport] = []
    stop = Interrupt("Stopping: the heads are fitted on the answers there are")
    fault: HydraError | None = None
    try:
        with open_user(ctx, user, model=model, base_url=base_url, offline=offline) as me:
            tasks = _tasks(me, task, user)
            if dry_run:
                _dry_run(me, tasks, calls, budget_s, use_llm=not no_llm, as_json=as_json)
                return
            remark = ""
            if not no_llm and (calls or budget_s):
                remark = _consent(me, tasks, calls, budget_s, yes=yes)
            if remark:
                calls = 0  # nobody agreed to what may come to be meanwhile
            with stop:
                fitted = _fit(
                    me, tasks, calls, budget_s, user=user, use_llm=not no_llm, as_json=as_json,
                    stop=stop, remark=remark,
                )  # fmt: skip
                reports.extend(fitted)
    except CancelledError as err:
        fault = err
    except KeyboardInterrupt:
        fault = CancelledError(
            "The fit was interrupted: got no report; expected one. The heads are what they were "
            "or fitted, answers made are kept. Fit again to go on."
        )
    if fault:
        output.write_error(fault.code, str(fault), as_json=False)
    if as_json:
        error = output.error_json(fault.code, str(fault)) if fault else {}
        shown = {"reports": [asdict(report) for report in reports]}
        output.write_json(shown | {"interrupted": stop.wanted or fault is not None} | error)
    if fault or stop.wanted:
        raise typer.Exit(130)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    put(
        app, "add", add,
        'hydra-edge add "Parser read past the end of an empty file" "Fix empty files" '
        "-t commit_subject",
        'hydra-edge add "a private matter" "my words" --private',
    )  # fmt: skip
    put(
        app, "fit-head", fit_head,
        "hydra-edge fit-head --user me",
        "hydra-edge fit-head --task commit_subject --budget 60s",
        "hydra-edge fit-head --calls 80 -m openai:MODEL --dry-run",
    )  # fmt: skip
