"""Asking: ``generate`` (the default command), ``rank``, and ``choose`` afterwards."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hydra_edge.cli import options, output, views
from hydra_edge.cli.erasing import not_fitted_line, unfitted
from hydra_edge.cli.group import put
from hydra_edge.cli.interrupt import Interrupt
from hydra_edge.cli.session import open_user
from hydra_edge.cli.taskwatch import slip_told
from hydra_edge.errors import CancelledError
from hydra_edge.reasons import head_line

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import Completion, Generation, Progress

_IMPORT = "Next: hydra-edge import --help"

Query = Annotated[
    str | None,
    typer.Argument(
        metavar="QUERY", help="What to answer; text piped in is put before it, - reads stdin only."
    ),
]


def generate(
    ctx: typer.Context,
    query: Query = None,
    user: options.User = None,
    task: options.Task = None,
    model: options.Model = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n", "--candidates", metavar="N", min=1, max=64, help="Answers to choose among."
        ),
    ] = None,
    k: options.Records = None,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", min=0.0, max=10.0, help="Of all samples but the first."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Longest answer; default: the task's, or as yours."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same answers.")] = 0,
    system: Annotated[
        str, typer.Option(metavar="TEXT", help="Instruction put before the task's own.")
    ] = "",
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say why these records and this answer, and number all."),
    ] = False,
    show_candidates: Annotated[
        bool, typer.Option("--show-candidates", help="List all candidates, numbered for choose.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the exact prompts and send nothing.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Keep history out of any remote prompt.")
    ] = False,
    offline: options.Offline = False,
    base_url: options.BaseUrl = None,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Print the answer when it is whole (for -n 1).")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer a query the way you would (the default command).

    The answer goes to stdout, everything else to stderr. A first word that is no command is a
    query, so the word `generate` may be left out. With -n 1 a text answer is written as it
    arrives, with --explain each candidate once it is finished. Ctrl-C answers with those
    finished by then.
    """
    text = options.read_query(query)
    # Whether it is sent or, by --dry-run, only shown.
    wishes: dict[str, Any] = {
        "task": task, "n": n, "k": k, "max_tokens": max_tokens, "system": system,
        "private": private, "seed": seed,
    }  # fmt: skip
    flags = {"model": model, "base_url": base_url}
    with open_user(ctx, user, create=user is None, offline=offline, **flags) as me:
        wanted = n or me.config.candidates
        streams = wanted == 1 and not (as_json or no_stream) and me.task(task).kind == "text"
        if dry_run:
            _dry_run(me, text, wishes | {"stream": streams}, as_json=as_json)
            return
        stopping = Interrupt("Stopping with the candidates that are finished")
        with stopping as stop, output.LateBar(quiet=as_json) as bar:
            hearing = _hearing(bar, wanted, explain=explain, as_json=as_json)
            try:
                generation = me.generate(
                    text, temperature=temperature, on_token=output.piece if streams else None,
                    should_stop=stop, progress=bar, **wishes, **hearing,
                )  # fmt: skip
            except CancelledError as err:
                output.write_error(err.code, str(err), as_json=as_json)
                raise typer.Exit(130) from err
        unknown = not generation.records and not me.store.count(generation.task)
    if as_json:
        output.write_json(views.generation_json(generation))
    else:
        # What was streamed is the answer byte for byte; only the line is to be ended.
        output.answer("" if streams else generation.text)
        # The candidates that --explain tells of as they come are in another order.
        numbered = show_candidates or (explain and len(generation.candidates) > 1)
        _remark(generation, show_candidates=numbered, explain=explain)
        if unknown:
            output.note(
                f"No records of {generation.task} yet: the LLM saw nothing of yours. {_IMPORT}"
            )
        if numbered and me.config.log:
            output.note(f"Take one: {options.command('choose', 'N', id=generation.id, user=user)}")
    if stop.wanted:
        raise typer.Exit(130)


def _dry_run(me: Personalizer, text: str, wishes: dict[str, Any], *, as_json: bool) -> None:
    """Print what a query would send, and what is to be said of it."""
    remarks: list[str] = []
    with output.LateBar(quiet=as_json) as bar:
        prompts = me.render_prompts(text, on_note=remarks.append, progress=bar, **wishes)
    views.write_prompts(prompts, as_json=as_json)
    for remark in remarks:
        output.note(remark, style="yellow")


def _hearing(bar: Progress, wanted: int, *, explain: bool, as_json: bool) -> dict[str, Any]:
    """Return who hears of candidates as they come: a reader, a bar that counts them, or nobody."""
    if explain and not as_json:
        return {"on_candidate": _tell}
    if wanted == 1 or explain or not output.is_shown(quiet=as_json):
        return {}
    count = _Count(bar, wanted)
    return {"on_candidate": count.add, "on_start": count.start}


def _remark(generation: Generation, *, show_candidates: bool, explain: bool) -> None:
    """Write for people what is to be said of an answer that is written."""
    sys.stdout.flush()
    for remark in generation.notes:
        output.note(remark, style="yellow")
    if show_candidates:
        views.write_candidates(generation, stream=sys.stderr)
    if explain:
        views.write_explanation(generation, stream=sys.stderr)
    output.note(views.usage_line(generation))


def _tell(candidate: Completion) -> None:
    output.note(f"candidate: {output.one_line(candidate.text, 100)}")


class _Count:
    """Tells a progress bar how many candidates are finished, from none on."""

    def __init__(self, bar: Progress, wanted: int) -> None:
        self._bar, self._wanted, self._finished = bar, wanted, itertools.count(1)

    def start(self, _generation_id: str) -> None:
        self._bar("candidates", 0, self._wanted)

    def add(self, _candidate: Completion) -> None:
        self._bar("candidates", next(self._finished), self._wanted)


def rank(
    ctx: typer.Context,
    query: Query = None,
    user: options.User = None,
    task: options.Task = None,
    k: options.Ranked = None,
    as_json: options.AsJson = False,
) -> None:
    """Show which records would be used for a query, and why.

    Each reason carries its exact share of the score; all shares (--json) add up to it. Private
    records are ranked and marked, too: they are shown to a local LLM only; a remote one is shown
    the next best in their place.
    """
    text = options.read_query(query)
    try:
        with open_user(ctx, user, create=user is None) as me, output.LateBar(quiet=as_json) as bar:
            ranking = me.rank(text, task=task, k=k, progress=bar)
    except KeyboardInterrupt as err:
        why = "Ranking was interrupted: got no records; expected some. Rank again."
        output.write_error(CancelledError.code, why, as_json=as_json)
        raise typer.Exit(130) from err
    if as_json:
        output.write_json(views.ranking_json(ranking))
        return
    views.write_ranking(ranking.records)
    if not ranking.records:
        output.note(f"No record of task {ranking.task} to show. {_IMPORT}")
    output.note(f"{ranking.task}: ranked by {head_line(ranking.head, 'your')}")


def choose(
    ctx: typer.Context,
    pick: Annotated[
        int | None,
        typer.Argument(metavar="N", min=1, help="Its number; without one, all are listed."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="TEXT", help="What you wrote instead; - reads stdin."),
    ] = None,
    generation: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Which answer; default: the last one."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Also keep it as a record of your history.")
    ] = True,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take back what you chose last, or of --id ID.")
    ] = False,
    user: options.User = None,
    as_json: options.AsJson = False,
) -> None:
    """Say which answer you took; your head learns from it at once.

    Give its number, or with --text what you made of it. With neither the candidates are listed
    with their numbers, and nothing is learned. Ctrl-C ends the learning: the next fit learns from
    the choice. --undo takes a choice back, with the record kept of it and what your head learned.
    """
    if undo + (pick is not None) + (text is not None) > 1:
        raise typer.BadParameter("expected one of: a number, --text, --undo.", param_hint="N")
    if undo:
        _undo(ctx, generation, user, as_json=as_json)
        return
    if text is not None:
        text = options.read_stdin().strip() if text == "-" else options.clean(text)
    if pick is None and text is None:
        _list(ctx, generation, user, as_json=as_json)
        return
    stopping = Interrupt("Stopping: the choice is kept, and the next fit learns from it")
    try:
        with open_user(ctx, user) as me, stopping as stop, output.LateBar(quiet=as_json) as bar:
            result = me.choose(
                generation_id=generation, pick=pick, text=text, keep=keep, progress=bar,
                should_stop=stop,
            )  # fmt: skip
            stored = me.store.choice(result.generation_id)
            slip = slip_told(me.task(result.task), [result.text])
    except CancelledError as err:
        if not stopping.wanted:
            raise
        output.write_error(err.code, str(err), as_json=as_json)
        raise typer.Exit(130) from err
    query = "" if stored is None else stored.query
    if slip:
        output.note(slip, style="yellow")
    if as_json:
        output.write_json(asdict(result) | {"query": query})
        return
    output.plain(f"{result.task}: {output.one_line(result.text, 100)}")
    if query:  # without --id the last answer may be one that an app was given
        output.note(f"chosen for: {output.one_line(query, 100)}")
    learned = (
        f"your head is now v{result.head_version} ({result.update_ms:.1f} ms)"
        if result.head_version is not None
        else "nothing to learn from it"
    )
    kept = f"kept as record {result.record_id}" if result.record_id else "not kept as a record"
    if result.record_id and not keep:
        erase = options.command("forget", result.record_id, user=user)
        kept += f", since an earlier choice of it was (`{erase}` erases it)"
    output.note(f"{learned}; {kept}; 0 LLM calls")
    if stopping.wanted:
        raise typer.Exit(130)


def _list(
    ctx: typer.Context, generation_id: str | None, user: str | None, *, as_json: bool
) -> None:
    """Show the candidates of an answer given earlier, with the numbers that take them."""
    from hydra_edge.choosing import find_generation

    with open_user(ctx, user) as me:
        found = find_generation(me.store, generation_id)
        choice = me.store.choice(found.id)
    if as_json:
        output.write_json(views.logged_json(found) | views.taken_json(choice))
        return
    output.plain(f"{found.task}: {output.one_line(found.query, 100)}")
    views.write_candidates(found, stream=sys.stdout)
    if choice is not None:
        back = f"{options.command('choose', id=found.id, user=user)} --undo"
        output.note(f"You took: {views.taken(choice)}. To take that back: {back}")
    output.note(f"Take one: {options.command('choose', 'N', id=found.id, user=user)}")
    output.note(f"Another answer: --id ID, of {options.command('history', 'log', user=user)}")


def _undo(
    ctx: typer.Context, generation_id: str | None, user: str | None, *, as_json: bool
) -> None:
    """Take a choice back and say what became of it."""
    with open_user(ctx, user) as me:
        count = len(me.store.choices())
        try:
            with output.LateBar(quiet=as_json) as bar:
                undone = me.undo_choice(generation_id=generation_id, progress=bar)
        except KeyboardInterrupt as err:
            if len(me.store.choices()) == count:
                raise
            why = "The choice is taken back"
            if left := unfitted(me):
                why += f", but {not_fitted_line(left, user)}"
            output.write_error(CancelledError.code, why, as_json=as_json)
            raise typer.Exit(130) from err
        is_logged = me.store.generation(undone.generation_id) is not None
    if as_json:
        output.write_json(asdict(undone))
        return
    output.plain(f"{undone.task}: {output.one_line(undone.text, 100)}")
    output.note(f"taken back; chosen for: {output.one_line(undone.query, 100)}")
    version = undone.head_version
    head = (
        "you have no head of your own for answers now"
        if version is None
        else f"your head is v{version}"
    )
    if undone.fitted_again:
        head += ", after a fit without it" if version is None else ", fitted again without it"
    if undone.record_id is None:
        kept = "no record was kept of it"
    elif undone.record_erased:
        kept = f"record {undone.record_id} is erased"
    elif undone.record_is_own:
        kept = f"record {undone.record_id} was changed since and stays"
    else:
        kept = f"record {undone.record_id} is not the choice's own and stays"
    output.note(f"{head}; {kept}; 0 LLM calls")
    if is_logged:
        again = options.command("choose", "N", id=undone.generation_id, user=user)
        output.note(f"To choose another: {again}")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    put(
        app, "generate", generate,
        'hydra-edge "Fix crash when the config is empty" --task commit_subject',
        "git diff --cached | hydra-edge generate -t commit_subject --show-candidates",
        'hydra-edge generate "my query" --dry-run',
    )  # fmt: skip
    put(
        app, "rank", rank,
        'hydra-edge rank "Fix crash when the config is empty" -k 8',
        'hydra-edge rank "my query" --task movie_tag --json',
    )  # fmt: skip
    put(
        app, "choose", choose,
        "hydra-edge choose",
        "hydra-edge choose 2",
        'hydra-edge choose --text "The subject I wrote instead"',
        "hydra-edge choose --undo",
    )  # fmt: skip
    put(app, "feedback", choose, "hydra-edge feedback 2", purpose="Another name for `choose`.")
