"""Chats in: ``import`` of what services export, each a thin call of its importer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hydra_edge.cli import options, pruning
from hydra_edge.cli.importoptions import DryRun, Private, Task, given
from hydra_edge.cli.intake import run
from hydra_edge.paths import expanded

Conversations = Annotated[
    Path, typer.Argument(metavar="FILE", help="The export's zip, or its conversations.json.")
]


def import_chatgpt(
    ctx: typer.Context,
    file: Conversations,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import a ChatGPT export: message -> answer.

    Its records are private unless you say --public.
    """
    from hydra_edge.importers import read_chatgpt

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    read = partial(read_chatgpt, expanded(file), **given(task=task, private=private))
    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)


def import_claude(
    ctx: typer.Context,
    file: Conversations,
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import a Claude export: message -> answer.

    It is what claude.ai exports under Settings, Privacy. Attached files, thoughts and uses of
    tools are left out. Its records are private unless you say --public.
    """
    from hydra_edge.importers import read_claude

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    read = partial(read_claude, expanded(file), **given(task=task, private=private))
    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)


def import_slack(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The export's zip.")],
    me: Annotated[
        str,
        typer.Option("--me", metavar="NAME", help="Your name there, your e-mail address or id."),
    ],
    user: options.User = None,
    task: Task = None,
    private: Private = None,
    prune: pruning.Prune = False,
    yes: pruning.Yes = False,
    most: pruning.Most = False,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Import what you answered in Slack: message -> reply.

    In a thread that is your reply to what others wrote since your last one, in a channel to what
    somebody wrote right before, at most an hour earlier. Its records are private unless you say
    --public.
    """
    from hydra_edge.importers import read_slack

    going = pruning.wanted(prune, yes, most, dry_run=dry_run, as_json=as_json)
    read = partial(read_slack, expanded(file), me=me, **given(task=task, private=private))
    run(ctx, read, user=user, private=private, dry_run=dry_run, as_json=as_json, pruning=going)
