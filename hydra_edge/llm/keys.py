"""API keys: from the environment, the system's keyring, or a file only its owner can read.

Hands keys to whoever sends them and shows them to nobody: no message of this module holds one.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra_edge.config import ENV_PREFIX, Paths, changing, write_private
from hydra_edge.errors import ConfigError

_SERVICE = "hydra-edge"
_KEYRING_WAIT_S = 10.0  # a locked keyring may ask for its password, or wait for a desktop for ever
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_IN_KEYRING = ""  # what the file holds for a key that the keyring keeps


def key_variable(name: str) -> str:
    """Return the environment variable that wins over a stored key."""
    if name == "openai":
        return "OPENAI_API_KEY"
    return f"{ENV_PREFIX}KEY_{name.upper().replace('-', '_')}"


def get_key(name: str, paths: Paths) -> str | None:
    """Return a key, or None if there is none: environment, then keyring, then file.

    Raises
    ------
    ConfigError
        If the name is not one, the keys file is readable by others or damaged, or the keyring
        that has the key does not give it.
    """
    _check_name(name)
    from_env = os.environ.get(key_variable(name), "").strip()
    if from_env:
        return from_env
    stored = _read(paths)
    if name not in stored:
        return None
    if stored[name] != _IN_KEYRING:
        return stored[name]
    value = _keyring("get", name)
    if value is None:
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
    _check_name(name)
    value = value.strip()
    if not value or not (value.isascii() and value.isprintable() and " " not in value):
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
    names = {key_variable(name): name for name in ("openai", *origins)}
    for variable in os.environ:
        if variable.startswith(prefix):
            names.setdefault(variable, variable.removeprefix(prefix).lower())
    for variable, name in names.items():
        if os.environ.get(variable, "").strip() and _NAME.fullmatch(name):
            origins[name] = f"environment {variable}"
    return dict(sorted(origins.items()))


def remove_key(name: str, paths: Paths) -> str:
    """Forget a stored key; return where it was.

    Raises
    ------
    ConfigError
        If no key of that name is stored.
    """
    _check_name(name)
    stored = _read(paths)
    if name not in stored:
        variable = key_variable(name)
        hint = f" It is set by the environment: unset {variable}." if variable in os.environ else ""
        raise ConfigError(
            f"No stored key {name!r}. Stored: {', '.join(sorted(stored)) or 'none'}.{hint}"
        )
    where = f"file {paths.keys_file}"
    if stored[name] == _IN_KEYRING:
        _keyring("delete", name)
        where = "keyring"
    with _editing(paths) as stored:
        stored.pop(name, None)
    return where


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"Key name {name!r} cannot be used; expected 1-32 lower-case letters, digits, '-' or "
            "'_', such as 'openai'."
        )


def _read(paths: Paths) -> dict[str, str]:
    """Read the file: each key, or for those in the keyring that they are there."""
    path = paths.keys_file
    try:
        mode = path.stat().st_mode
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(
                f"Keys file {path} can be read by others: its mode is {stat.S_IMODE(mode):04o}; "
                f"expected 0600. Run: chmod 600 {path}"
            )
        keys: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
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
    """Ask the system's keyring; None whenever it is missing, broken, or does not answer."""
    found: list[str | None] = []

    def ask() -> None:
        try:
            import keyring

            if action == "set":
                keyring.set_password(_SERVICE, name, value)
            if action == "delete":
                keyring.delete_password(_SERVICE, name)
            else:
                found.append(keyring.get_password(_SERVICE, name))
        except Exception:  # noqa: S110 - headless, locked, misconfigured: the file serves
            pass

    _in_time(ask)
    return found[0] if found else None


def _in_time(work: Callable[[], None]) -> None:
    """Run something that may hang on a thread that can be left behind."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(_KEYRING_WAIT_S)
