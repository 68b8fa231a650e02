"""Which LLMs can be asked, and the keys of those that want one: ``models``, ``keys``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from hydra_edge.cli import options, output
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.session import settings

KeyName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Whose key: openai, or the host of an API, such as api.mistral.ai."
    ),
]
StoredKey = Annotated[str, typer.Argument(metavar="NAME", help="As `keys list` shows it.")]


def list_models(as_json: options.AsJson = False) -> None:
    """List the LLMs that can be asked, and how to get others."""
    from hydra_edge.llm.models import available_models

    config, _ = settings()
    models = available_models(config)
    if as_json:
        output.write_json({"model": config.model, "models": [asdict(model) for model in models]})
        return
    rows = [(m.name, m.kind, "yes" if m.installed else "no", m.note, m.where) for m in models]
    output.table(("model", "kind", "ready", "note", "where"), rows)
    output.note(f"In use: {config.model or 'smollm2, if it is ready'}; change it with -m, or "
                "hydra-edge config set model NAME")  # fmt: skip


def name_to_keep(spec: str) -> str:
    """Return a model's name as it means the same from any folder.

    None is opened, and one not installed yet may be named.

    Raises
    ------
    UnknownModelError
        If no LLM answers to the name.
    """
    from hydra_edge.llm.models import check_name
    from hydra_edge.llm.names import read_name

    name = read_name(spec)
    check_name(name)
    return name.anywhere()


def set_key(name: KeyName) -> None:
    """Store an API key, typed unseen or from stdin.

    A key stored under the host of an address (with :PORT, for that port only) is sent there and
    nowhere else. That of openai, or OPENAI_API_KEY, is sent to every address (--base-url) whose
    host has no key of its own.

    It goes to the system's keyring (extra `keyring`), or where there is none to a file only you
    can read.
    """
    from importlib.util import find_spec

    from hydra_edge.llm import keys
    from hydra_edge.paths import find_paths

    keys.check_name(name)  # before the key is typed
    if output.is_terminal(sys.stdin):
        value = typer.prompt(f"Key for {output.one_line(name)}", hide_input=True, err=True)
    else:
        value = options.read_stdin()
    where = keys.set_key(name, value, find_paths())
    output.note(f"Key {name} stored: {where}")
    if where != "keyring" and find_spec("keyring") is None:
        output.note(
            "Only you can read this file (mode 0600). For the system's keyring, install the "
            "package keyring beside hydra-edge (its extra `keyring`): pip install keyring; then "
            "set the key again."
        )


def list_keys(as_json: options.AsJson = False) -> None:
    """List the keys there are and where each is kept, not the keys.

    That of openai is sent to every address whose host has no key of its own.
    """
    from hydra_edge.llm import keys
    from hydra_edge.paths import find_paths

    paths = find_paths()
    found = keys.list_keys(paths)
    if as_json:
        output.write_json({"keys": found})
        return
    output.table(("key", "kept in"), list(found.items()))
    for name in keys.unused_keys(paths):
        shown = output.one_line(name)
        output.note(
            f"Key {shown} is sent nowhere: its name is no host. Set it again under the host of its "
            f"address, then run `hydra-edge keys remove {shown}`.",
            style="yellow",
        )


def remove_key(name: StoredKey) -> None:
    """Forget a stored key."""
    from hydra_edge.llm import keys
    from hydra_edge.paths import find_paths

    output.note(f"Key {name} removed: {keys.remove_key(name, find_paths())}")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    put(app, "models", list_models, "hydra-edge models", "hydra-edge models --json")
    group = new_group(
        "Keep API keys for remote LLMs.",
        "hydra-edge keys set openai",
        "hydra-edge keys list",
    )
    put(
        group, "set", set_key,
        "hydra-edge keys set openai",
        "hydra-edge keys set api.mistral.ai",
        "pass show openai | hydra-edge keys set openai",
    )  # fmt: skip
    put(group, "list", list_keys, "hydra-edge keys list --json")
    put(group, "remove", remove_key, "hydra-edge keys remove openai")
    app.add_typer(group, name="keys")
