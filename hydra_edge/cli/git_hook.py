"""Proposing commit subjects from git itself: ``git-hook install`` and the rest."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import installed, models, options, output
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.interrupt import die_on_sigterm
from hydra_edge.cli.session import check_named, open_user, settings
from hydra_edge.errors import CancelledError, EgressDeniedError, HydraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hydra_edge.githook.hooks import HookState, Installed
    from hydra_edge.personalizer import Personalizer

Repo = Annotated[
    Path, typer.Option("--repo", metavar="PATH", help="A git repository; default: the one here.")
]
Subjects = Annotated[str, options.task_option("Which kind of query a subject is.")]
Limit = Annotated[
    str,
    typer.Option(
        "--limit",
        metavar="TIME",
        help="Longest a proposal may take, and again what is learned, as 15s or 1m.",
    ),
]
AllowRemote = Annotated[
    bool,
    typer.Option("--allow-remote", help="Let a remote LLM see what is staged, in words."),
]
_TASK, _LIMIT = "commit_subject", "15s"


def install(
    ctx: typer.Context,
    repo: Repo = Path(),
    user: options.User = None,
    task: Subjects = _TASK,
    model: options.Model = None,
    limit: Limit = _LIMIT,
    allow_remote: AllowRemote = False,
    as_json: options.AsJson = False,
) -> None:
    """Propose a subject at every commit that has no message yet.

    The proposal is made of what is staged, in your style; which subject you commit teaches
    your head. No commit is ever refused. One waits for --limit at most before it and as long
    again after it, and for Python to start. A hook that is there already is kept, and runs first.
    Installing again renews ours, with the options given then.
    """
    from hydra_edge.githook import Repository, hooks
    from hydra_edge.program import command, environment

    if not options.seconds(limit, "--limit"):
        raise typer.BadParameter(
            f"{limit!r} leaves no time for a proposal; expected for example 15s.",
            param_hint="--limit",
        )
    repository = Repository(repo)
    model = models.name_to_keep(model) if model else None
    with open_user(ctx, user, create=user is None):
        pass
    check_named(ctx, user, [task])  # a name mistyped is said now, not at every commit
    words = _words(user, task, model, limit, allow_remote=allow_remote)
    _tell(hooks.install(repository, command([]), words, environment()), as_json=as_json)
    for remark in hooks.remarks(repository):
        output.note(remark, style="yellow")
    _warn_of_llm(words, repo)


def _words(
    user: str | None, task: str, model: str | None, limit: str, *, allow_remote: bool
) -> list[str]:
    """Return the options to install a hook with, which it then runs with."""
    words = ["--allow-remote"] if allow_remote else []
    return [*words, *options.as_words(user=user, model=model, task=task, limit=limit)]


def uninstall(repo: Repo = Path(), as_json: options.AsJson = False) -> None:
    """Take the hooks out; those that were there before come back."""
    from hydra_edge.githook import Repository, hooks

    removed = hooks.uninstall(Repository(repo))
    if as_json:
        gone = [_state_json(replace(state, installed=False)) for state in removed]
        output.write_json({"removed": gone})
        return
    for state in removed:
        removal = ["removed"] if state.installed else []
        back = ["the hook before it is back"] if state.chained else []
        output.plain(f"{state.path}: {'; '.join(removal + back)}")
    if not removed:
        output.plain("No hook of ours is there.")


def status(repo: Repo = Path(), as_json: options.AsJson = False) -> None:
    """Show whether the hooks are in a repository.

    A warning on stderr says so if their LLM cannot be used, or if they look for your history
    elsewhere than this command does: installed again, they look where it is now.
    """
    from hydra_edge.githook import Repository, hooks

    repository = Repository(repo)
    _tell(hooks.states(repository), as_json=as_json)
    found = hooks.installed(repository)
    if found is not None and _warn_of_folders(found, repo):
        _warn_of_llm(found.options, repo)


def _warn_of_folders(found: Installed, repo: Path) -> bool:
    """Say so if hooks do not find the history that is in force; return whether they do."""
    from hydra_edge.program import environment, moved_folders

    place = [] if repo == Path() else ["--repo", str(repo)]
    again = ["hydra-edge", "git-hook", "install", *place, *found.options]
    theirs, ours = moved_folders(found.environment), moved_folders(environment())
    if theirs != ours:
        output.note(
            f"The hooks look for your history in {installed.told(theirs)}; here it is in "
            f"{installed.told(ours)}. To have them look here: {shlex.join(again)}",
            style="yellow",
        )
        return False
    words = found.options
    user = words[words.index("--user") + 1] if "--user" in words else None
    if why := installed.why_missing(user, again):
        output.note(f"Until this is seen to, no commit gets a proposal: {why}", style="yellow")
    return not why


def _warn_of_llm(words: list[str], repo: Path) -> None:
    """Say now what a hook with these options would have to say at every commit."""
    from hydra_edge.llm.models import check_ready

    model = words[words.index("--model") + 1] if "--model" in words else None
    allowed = "--allow-remote" in words
    try:
        config, paths = settings(model=model, offline=None if allowed else True)
        check_ready(config.model, config, paths)
    except EgressDeniedError:
        place = [] if repo == Path() else ["--repo", str(repo)]
        why = _how_to_allow([*place, *(word for word in words if word != "--allow-remote")])
    except HydraError as err:
        why = output.one_line(str(err))
    else:
        return
    output.note(f"Until this is seen to, no commit gets a proposal: {why}", style="yellow")


def _how_to_allow(words: list[str]) -> str:
    """Say how a remote LLM is allowed to a hook that has these options otherwise."""
    from hydra_edge.config import way_online

    again = shlex.join(["hydra-edge", "git-hook", "install", "--allow-remote", *words])
    config, paths = settings()
    # Offline may have been on when the hook was installed, which it keeps: hence both steps.
    why = " and offline is on" if config.offline else ""
    way = f"{way_online(paths)}, then run: " if config.offline else ""
    return f"the LLM is remote{why}. To let it see what is staged, in words: {way}{again}"


def _state_json(state: HookState) -> dict[str, object]:
    return {**asdict(state), "path": str(state.path)}


def _tell(states: list[HookState], *, as_json: bool) -> None:
    if as_json:
        output.write_json({"hooks": [_state_json(state) for state in states]})
        return
    for state in states:
        word = "installed" if state.installed else "not installed"
        if state.set_aside:
            word += ", and your own hook does not run (`git-hook uninstall` brings it back)"
        elif state.chained:
            word += f", after {state.name}.before-hydra-edge"
        output.plain(f"{state.path}: {word}")


def run(
    ctx: typer.Context,
    hook: Annotated[str, typer.Argument(metavar="HOOK", help="prepare-commit-msg or post-commit.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARG...", help="What git gives the hook.")
    ] = None,
    user: options.User = None,
    task: Subjects = _TASK,
    model: options.Model = None,
    limit: Limit = _LIMIT,
    allow_remote: AllowRemote = False,
) -> None:
    """Be a hook: git's own hooks call this.

    It always ends well; what goes wrong is one line on stderr. It begins no history: where the
    one it was installed for is not there any more, that is what it says.
    """
    from hydra_edge.githook.limit import within
    from hydra_edge.githook.proposal import be_hook

    given = _words(user, task, model, limit, allow_remote=allow_remote)
    again = ["hydra-edge", "git-hook", "install", *given]

    def open_person() -> Personalizer:
        return installed.open_installed(ctx, user, again, model=model, offline=not allow_remote)

    embedded: list[tuple[int, int]] = []  # of the records that never were, and of how many

    def work(should_stop: Callable[[], bool]) -> None:
        be_hook(
            hook, arguments or [], task=task, open_person=open_person, should_stop=should_stop,
            progress=lambda _stage, done, total: embedded.append((done, total)),
        )  # fmt: skip

    die_on_sigterm()  # a thread may be deep inside an LLM, which no exit should wait for
    failed = "nothing learned" if hook == "post-commit" else "nothing proposed"
    try:
        within(options.seconds(limit, "--limit") or 0.0, work)
    except TimeoutError:
        output.note(f"hydra-edge: {failed} within {limit}{_why(embedded, user, task)}.")
        sys.stderr.flush()
        os._exit(0)  # a thread may be deep inside an LLM, and git has waited long enough
    except CancelledError:
        output.note(f"hydra-edge: {failed} within {limit}{_why(embedded, user, task)}.")
    except EgressDeniedError:
        words = _words(user, task, model, limit, allow_remote=False)
        output.note(f"hydra-edge: {failed}: {_how_to_allow(words)}")
    except HydraError as err:
        output.note(f"hydra-edge: {failed}: {output.one_line(str(err))}")
    except Exception as err:
        output.note(f"hydra-edge: {failed}: a fault of its own ({type(err).__name__}).")


def _why(embedded: list[tuple[int, int]], user: str | None, task: str) -> str:
    """Say that the time went into records that are embedded for the first time, if it did."""
    done, total = embedded[-1] if embedded else (0, 0)
    if done >= total:
        return ""
    fit = ["hydra-edge", "fit-head", *options.as_words(user=user, task=task)]
    return (
        f": {done:,} of {total:,} texts of your history are embedded, which is done once. "
        f"To do the rest now: {shlex.join(fit)}"
    )


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    group = new_group(
        "Propose commit subjects in your style, from git itself.",
        "hydra-edge git-hook install",
        "hydra-edge git-hook uninstall",
    )
    put(
        group, "install", install,
        "hydra-edge git-hook install",
        "hydra-edge git-hook install --repo ~/src/project --limit 5s",
    )  # fmt: skip
    put(group, "uninstall", uninstall, "hydra-edge git-hook uninstall")
    put(group, "status", status, "hydra-edge git-hook status --json")
    put(
        group, "run", run,
        "hydra-edge git-hook run -- prepare-commit-msg .git/COMMIT_EDITMSG",
    )  # fmt: skip
    app.add_typer(group, name="git-hook")
