"""What is set up on this device: ``config``, ``users``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hydra_edge.cli import models, options, output, views
from hydra_edge.cli.bundle import use_bundle
from hydra_edge.cli.group import new_group, put
from hydra_edge.cli.session import settings, task_spec
from hydra_edge.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from hydra_edge.types import JsonDict

Setting = Annotated[str, typer.Argument(metavar="NAME", help="A setting; see `config list`.")]


def list_settings(as_json: options.AsJson = False) -> None:
    """List all settings in force; * marks those not at default."""
    from hydra_edge.config import Config

    config, paths = settings()
    values, defaults = asdict(config), asdict(Config())
    if as_json:
        output.write_json(values)
        return
    rows = [
        (name + ("*" if value != defaults[name] else ""), _setting_text(value))
        for name, value in values.items()
    ]
    output.table(("setting", "value"), rows)
    output.note(f"File: {paths.config_file}; environment variables HYDRA_EDGE_<NAME> win over it.")


def _setting_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def get_setting(name: Setting, as_json: options.AsJson = False) -> None:
    """Print one setting."""
    values = asdict(settings()[0])
    if name not in values:
        raise ConfigError(f"Unknown setting {name!r}. Known: {', '.join(values)}.")
    if as_json:
        output.write_json({name: values[name]})
        return
    output.answer(_setting_text(values[name]))


def set_setting(
    ctx: typer.Context,
    name: Setting,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its new value.")],
) -> None:
    """Change one setting for good."""
    from hydra_edge.config import save_setting
    from hydra_edge.paths import find_paths
    from hydra_edge.variables import variable_over

    if name == "bundle":
        use_bundle(value)
        return
    value = _checked(ctx, name, value)
    paths = find_paths()
    save_setting(paths, name, value)
    said = f"{name} written to {paths.config_file}"
    if variable := variable_over(name):
        said += f", but {variable} wins over it: unset that"
    output.note(said)


def unset_setting(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A setting, or another name in the file.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Take one setting out of the file, so that its default holds."""
    from hydra_edge import config as kept
    from hydra_edge.paths import find_paths
    from hydra_edge.variables import variable_over

    paths = find_paths()
    there = kept.unset_setting(paths, name)
    if not as_json:
        output.note(f"{name} {'removed from' if there else 'is not in'} {paths.config_file}")
    values = asdict(kept.load_config(paths))  # refused if something else in it is wrong
    if as_json:
        output.write_json({name: values.get(name)})
    elif name in values:
        value = output.one_line(_setting_text(values[name]))
        source = variable_over(name) or "the default"
        output.note(f"In force: {f'{value}, ' if value else ''}{source}")


def _checked(ctx: typer.Context, name: str, value: str) -> str:
    """Return what to keep of a value; refuse one no command could do anything with."""
    if name == "model":
        return models.name_to_keep(value)
    if name == "task" and value:
        task_spec(ctx, value, None)
    elif name == "base_url":
        from hydra_edge.llm.address import split_base_url

        split_base_url(value)
    return value


def config_path() -> None:
    """Print where the settings file is."""
    from hydra_edge.paths import find_paths

    output.answer(str(find_paths().config_file))


def _state(path: Path, fault: StoreError) -> str:
    """Say in a word why a history cannot be opened."""
    import sqlite3

    cause = fault.__cause__
    looked_into = isinstance(cause, sqlite3.DatabaseError | ValueError)
    if looked_into and not isinstance(cause, sqlite3.OperationalError):
        return "damaged"
    # A link to nothing is no matter of permissions.
    places = (place for place in (path, path.parent) if place.exists())
    writable = all(os.access(place, os.W_OK) for place in places)
    return "unusable" if writable else "read-only"


def list_users(as_json: options.AsJson = False) -> None:
    """List the people with a history on this device."""
    from hydra_edge.store import Store

    config, paths = settings()
    users: list[JsonDict] = []
    states: dict[str, str] = {}
    for path in sorted(paths.users.glob("*.db")):
        entry: JsonDict = {
            "user": path.stem,
            "path": str(path),
            "default": path.stem == config.user,
        }
        try:
            with Store.open(path, create=False) as store:
                entry |= {"records": store.count(), "size_bytes": store.size_bytes()}
        except StoreError as err:
            entry |= {"records": None, "size_bytes": None, "error": str(err)}
            states[path.stem] = _state(path, err)
        users.append(entry)
    if as_json:
        output.write_json({"users": users})
        return
    rows = [
        (
            f"{entry['user']}{'*' if entry['default'] else ''}",
            states[entry["user"]] if entry["user"] in states else f"{entry['records']:,}",
            views.size(entry["size_bytes"]),
            entry["path"],
        )
        for entry in users
    ]
    output.table(("user", "records", "size", "file"), rows)
    for entry in users:
        if "error" in entry:
            output.note(entry["error"], style="yellow")
    if not users:
        output.note(f"Nobody yet in {paths.users}. Next: hydra-edge import --help")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    config = new_group(
        "Read and change settings.",
        "hydra-edge config list",
        "hydra-edge config set model gemma3",
    )
    put(config, "list", list_settings, "hydra-edge config list --json")
    put(config, "get", get_setting, "hydra-edge config get model")
    put(
        config, "set", set_setting,
        "hydra-edge config set user ada",
        "hydra-edge config set offline true",
        negative=True,  # a number below 0 is told what may be set, not that it is no option
    )  # fmt: skip
    put(
        config, "unset", unset_setting,
        "hydra-edge config unset model",
        "hydra-edge config unset candidates --json",
    )  # fmt: skip
    put(config, "path", config_path, '$EDITOR "$(hydra-edge config path)"')
    app.add_typer(config, name="config")

    put(app, "users", list_users, "hydra-edge users", "hydra-edge users --json")
