"""The configuration files of AI applications: adding our server to them, and taking it out.

These files are the person's own. An edit keeps every other entry and their order, leaves what
was there in a backup beside the file, and replaces the file in one step; a file that is not
understood is not touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra_edge.errors import ConfigError
from hydra_edge.privatefiles import replacing
from hydra_edge.program import NAME, VARIABLES, command, environment
from hydra_edge.spelling import refuse_constant
from hydra_edge.types import JsonDict

_SERVERS = "mcpServers"
CLIENTS = {"claude": "Claude Desktop", "cursor": "Cursor", "lmstudio": "LM Studio"}
_BOM = "\ufeff"


def config_path(client: str, *, platform: str, home: Path, environment: Mapping[str, str]) -> Path:
    """Return where a client keeps its servers, on a platform as ``sys.platform`` names it.

    Raises
    ------
    ConfigError
        If the client is not known.
    """
    if client == "cursor":
        return home / ".cursor" / "mcp.json"
    if client == "lmstudio":
        return home / ".lmstudio" / "mcp.json"
    if client != "claude":
        raise ConfigError(
            f"No client {client!r}; expected {', '.join(CLIENTS)}. For another one, copy what "
            "--print shows into its configuration."
        )
    if platform == "darwin":
        folder = home / "Library" / "Application Support"
    elif platform == "win32":
        folder = Path(environment.get("APPDATA") or home / "AppData" / "Roaming")
    else:
        folder = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return folder / "Claude" / "claude_desktop_config.json"


def own_config_path(client: str) -> Path:
    """Return where a client keeps its servers on this machine, for this person."""
    return config_path(client, platform=sys.platform, home=Path.home(), environment=os.environ)


def entry(arguments: Sequence[str]) -> JsonDict:
    """Return our server as a client's configuration describes it.

    A client starts its servers with next to none of our environment, so a home of our own
    that is set now goes with it.
    """
    program, *rest = command(arguments)
    made: JsonDict = {"command": program, "args": rest}
    if variables := environment():
        made["env"] = variables
    return made


@dataclass(frozen=True, slots=True)
class Edit:
    """What was done to a file; ``backup`` holds what it was before, None if it was not there."""

    path: Path
    changed: bool
    backup: Path | None = None


def add_server(path: Path, server: JsonDict) -> Edit:
    """Put our server into a client's configuration; other keys of our own entry are kept.

    Raises
    ------
    ConfigError
        If the file is not the JSON it should be, or cannot be written. It is left alone.
    """
    text, config = _read(path)
    servers = _servers(path, config)
    old = servers.get(NAME)
    new = _merged(old, server) if isinstance(old, dict) else server
    if old == new:
        return Edit(path, changed=False)
    return _write(path, text, {**config, _SERVERS: {**servers, NAME: new}})


def _merged(old: JsonDict, new: JsonDict) -> JsonDict:
    """Lay our entry over the one there is; what the person added to that one stays."""
    environment = old.get("env")
    if isinstance(environment, dict):
        # Ours of an earlier installation must not outlive it.
        others = {name: value for name, value in environment.items() if name not in VARIABLES}
        new = {**new, "env": {**others, **new.get("env", {})}}
    return {**old, **new}


def remove_server(path: Path) -> Edit:
    """Take our server out of a client's configuration.

    Raises
    ------
    ConfigError
        If the file is not the JSON it should be, or cannot be written. It is left alone.
    """
    text, config = _read(path)
    servers = _servers(path, config)
    if NAME not in servers:
        return Edit(path, changed=False)
    rest = {name: server for name, server in servers.items() if name != NAME}
    return _write(path, text, {**config, _SERVERS: rest})


def _once(pairs: list[tuple[str, object]]) -> JsonDict:
    """Refuse an object that names a key twice: writing it again would lose one of them."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is there twice")
    return made


def _read(path: Path) -> tuple[str | None, JsonDict]:
    """Return a file's text and what it says; None and nothing if there is no file."""
    try:
        text = path.read_bytes().decode("utf-8")
        config = json.loads(
            text.removeprefix(_BOM) if text.strip(_BOM + " \r\n\t") else "{}",
            object_pairs_hook=_once,
            parse_constant=refuse_constant,
        )
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError, RecursionError) as err:
        raise ConfigError(
            f"{path} cannot be read: {err}. Expected a JSON file. It was left as it is; correct "
            "it, or add by hand what --print shows."
        ) from err
    if not isinstance(config, dict):
        raise _not_ours(path, "the whole")
    return text, config


def _servers(path: Path, config: JsonDict) -> JsonDict:
    servers = config.get(_SERVERS, {})
    if not isinstance(servers, dict):
        raise _not_ours(path, _SERVERS)
    return servers


def _not_ours(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path} is not a client's configuration: {what} is no object; expected one. It was left "
        "as it is. Check the path."
    )


def _write(path: Path, before: str | None, config: JsonDict) -> Edit:
    """Replace a file in one step, its mode kept, with what it was in a backup beside it."""
    real = Path(os.path.realpath(path))  # a link to a file kept elsewhere stays a link
    backup = None
    data = _encoded(path, before or "", config)  # first: what cannot be written needs no backup
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        if before is not None:
            backup = real.with_name(real.name + ".before-hydra-edge")
            shutil.copy2(real, backup)
        with replacing(real, like=real if before is not None else None) as stream:
            stream.write(data)
    except OSError as err:
        raise ConfigError(
            f"Cannot write {path}: {err.strerror or err}. Expected a file you may change. "
            "Check its permissions, or add by hand what --print shows."
        ) from err
    return Edit(path, changed=True, backup=backup)


def _encoded(path: Path, before: str, config: JsonDict) -> bytes:
    """Refuse what can be read and not written again: numbers without end, half characters."""
    try:
        return _laid_out(before, config).encode("utf-8")
    except ValueError as err:
        reason = ascii(str(err))[1:-1]
        raise ConfigError(
            f"{path} cannot be written again as JSON: got {reason}; expected numbers and texts "
            "that JSON can carry. It was left as it is; correct it, or add by hand what --print "
            "shows."
        ) from err


def _laid_out(before: str, config: JsonDict) -> str:
    """Write a configuration in the layout the file had: its indent, its line ends, its mark."""
    found = re.search(r"\n([ \t]+)\"", before)
    indent = found[1] if found else 2
    text = json.dumps(config, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    if "\r\n" in before:
        text = text.replace("\n", "\r\n")
    return _BOM + text if before.startswith(_BOM) else text
