"""API keys: from the environment, the system's keyring, or a file only its owner can read.

A key is named by the host it is for; that of ``openai`` serves all hosts that have none.
Hands keys to whoever sends them and shows them to nobody: no message of this module holds one.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hydra_edge.errors import ConfigError
from hydra_edge.paths import Paths
from hydra_edge.privatefiles import changing, read_private, write_private
from hydra_edge.variables import ENV_PREFIX

_SERVICE = "hydra-edge"
_KEYRING_WAIT_S = 10.0  # a locked keyring may ask for its password, or wait for a desktop for ever
_HOST = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,31}(:[0-9]{1,5})?")
_HOST_VARIABLE = re.compile(r"[a-z0-9]+(_+[a-z0-9]+)+|localhost")  # what follows the prefix
_IN_KEYRING = ""  # what the file holds for a key that the keyring keeps
_NONE = ""  # what the keyring is said to hold where it answers that it has no such key


def key_variable(name: str) -> str:
    """Return the environment variable that wins over a stored key."""
    if name == "openai":
        return "OPENAI_API_KEY"
    # A hyphen is two: api-x.ai and api.x.ai are hosts of different people.
    return f"{ENV_PREFIX}KEY_{re.sub('[^A-Z0-9_]', '_', name.upper().replace('-', '__'))}"


def key_for(host: str, port: int, paths: Paths) -> str | None:
    """Return the key for an address: its host's with this port, its host's, or that of openai.

    ``port`` is the one that is connected to, also where the address leaves it to its scheme.

    Raises
    ------
    ConfigError
        As ``get_key``.
    """
    host = host.rstrip(".")
    for name in (f"{host}:{port}", host):
        if _is_host(name) and (key := get_key(name, paths)):
            return key
    return get_key("openai", paths)


def can_be_sent(key: str) -> bool:
    """Whether a key can stand in a header: no blank, no line break, nothing beyond ASCII."""
    return key.isascii() and key.isprintable() and " " not in key


def get_key(name: str, paths: Paths) -> str | None:
    """Return a key, or None if there is none: environment, then keyring, then file.

    Raises
    ------
    ConfigError
        If the name is not one, the keys file is readable by others or damaged, or the keyring
        that has the key does not give it.
    """
    check_name(name)
    from_env = os.environ.get(key_variable(name), "").strip()
    if from_env:
        return from_env
    stored = _read(paths)
    if name not in stored:
        return None
    if stored[name] != _IN_KEYRING:
        return stored[name]
    value = _keyring("get", name)
    if not value:
        raise ConfigError(
            f"The key {name!r} is in the system's keyring, which does not give it. Unlock the "
            f"keyring, set it again with `hydra-edge keys set {name}`, or set {key_variable(name)}."
        )
    return value


def set_key(name: str, value: str, paths: Paths) -> str:
    """Keep a key in the keyring if it works, else in the file; return where.

    Raises
    ------
    ConfigError
        If name or value cannot be one, or the file cannot be written.
    """
    check_name(name)
    value = value.strip()
    if not value or not can_be_sent(value):
        raise ConfigError(
            f"The key for {name!r} cannot be used: it is empty or holds a blank, a line break, or "
            "a character beyond ASCII. Copy it again."
        )
    _read(paths)  # refuse a file that cannot be used before the keyring gets the key
    # Read back: a keyring may accept a key and keep nothing. Not while others wait for the file:
    # a keyring may take its time.
    kept = _keyring("set", name, value) == value
    with _editing(paths) as stored:
        stored[name] = _IN_KEYRING if kept else value
    return "keyring" if kept else f"file {paths.keys_file}"


def list_keys(paths: Paths) -> dict[str, str]:
    """Return where each known key would come from, by name; no values."""
    origins = {
        name: "keyring" if value == _IN_KEYRING else f"file {paths.keys_file}"
        for name, value in _read(paths).items()
    }
    prefix = f"{ENV_PREFIX}KEY_"
    names = {key_variable(name): name for name in ("openai", *filter(_is_host, origins))}
    for variable in os.environ:
        rest = variable.removeprefix(prefix).lower()
        if variable.startswith(prefix) and _HOST_VARIABLE.fullmatch(rest):
            names.setdefault(variable, rest)
    for variable, name in names.items():
        if os.environ.get(variable, "").strip():
            origins[name] = f"environment {variable}"
    return dict(sorted(origins.items()))


def unused_keys(paths: Paths) -> list[str]:
    """Return the names of stored keys that are sent to no address."""
    return sorted(name for name in _read(paths) if name != "openai" and not _is_host(name))


def remove_key(name: str, paths: Paths) -> str:
    """Forget a stored key, whatever its name; return where it was.

    Raises
    ------
    ConfigError
        If no key of that name is stored, or the keyring may still have it.
    """
    stored = _read(paths)
    if name not in stored:
        variable = key_variable(name)
        hint = f" It is set by the environment: unset {variable}." if variable in os.environ else ""
        raise ConfigError(
            f"No stored key {name!r}. Stored: {', '.join(sorted(stored)) or 'none'}.{hint}"
        )
    where = f"file {paths.keys_file}"
    # Also of a key in the file: it may have replaced one while the keyring was locked.
    left = _keyring("delete", name)
    if stored[name] == _IN_KEYRING or left:
        if left != _NONE:
            state = "cannot be asked whether it still has it" if left is None else "still has it"
            raise ConfigError(
                f"Key {name!r} is not removed: the system's keyring {state}; expected it gone. "
                "Unlock the keyring (install the package keyring if that is gone), then run "
                f"`hydra-edge keys remove {name}` again."
            )
        where = "keyring"
    with _editing(paths) as stored:
        stored.pop(name, None)
    return where


def _is_host(name: str) -> bool:
    """Return whether a name can only be that of a host, and so is of use for an address."""
    return bool(_HOST.fullmatch(name)) and (name == "localhost" or "." in name or ":" in name)


def check_name(name: str) -> None:
    """Refuse a name under which no key would be looked for.

    Raises
    ------
    ConfigError
        With the names there can be.
    """
    if name != "openai" and not _is_host(name):
        raise ConfigError(
            f"Key name {name!r} cannot be used; expected openai, or the host of an API's address "
            "in lower case, as in `hydra-edge keys set api.mistral.ai` or `... set localhost:8080`."
        )


def _read(paths: Paths) -> dict[str, str]:
    """Read the file: each key, or for those in the keyring that they are there."""
    path = paths.keys_file
    try:
        text = read_private(path, name=f"Keys file {path}", remedy=f"Run: chmod 600 {path}")
        if text is None:
            return {}
        keys: Any = json.loads(text)
    except OSError as err:
        raise ConfigError(f"Keys file {path} cannot be read: {err.strerror or err}.") from err
    except (ValueError, RecursionError):
        keys = None  # not chained: what a parser quotes may be part of a key
    if not isinstance(keys, dict) or not all(isinstance(v, str) for v in keys.values()):
        raise ConfigError(
            f"Keys file {path} is damaged; expected a JSON object of names and keys. Remove it and "
            "set the keys again with `hydra-edge keys set`."
        )
    return keys


@contextmanager
def _editing(paths: Paths) -> Iterator[dict[str, str]]:
    """Change the file while no other program does."""
    with changing(paths.keys_file):
        keys = _read(paths)
        yield keys
        try:
            write_private(paths.keys_file, json.dumps(keys, indent=2, sort_keys=True) + "\n")
        except OSError as err:
            raise ConfigError(
                f"Keys file {paths.keys_file} cannot be written: {err.strerror or err}. Use the "
                "environment instead."
            ) from err


def _keyring(action: str, name: str, value: str = "") -> str | None:
    """Return what the system's keyring has afterwards, ``_NONE`` if nothing.

    None whenever it is missing, broken, or does not answer.
    """
    found: list[str] = []

    def ask() -> None:
        try:
            import keyring

            if action == "set":
                keyring.set_password(_SERVICE, name, value)
            if action == "delete":
                with suppress(Exception):  # what it refused is still there to be read
                    keyring.delete_password(_SERVICE, name)
            found.append(keyring.get_password(_SERVICE, name) or _NONE)
        except Exception:  # noqa: S110 - headless, locked, misconfigured: the file serves
            pass

    _in_time(ask)
    return found[0] if found else None


def _in_time(work: Callable[[], None]) -> None:
    """Run something that may hang on a thread that can be left behind."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_KEYRING_WAIT_S)
