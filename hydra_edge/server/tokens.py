"""Who may ask the server for what: one token for the owner, one for each app.

The owner's token is kept as it is, since its clients must read it; of an app's token only the
sha256 is kept, and the token itself is shown once. Both files are of mode 0600. A running
server sees at once that apps come and go, and that the owner's token is another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra_edge.errors import ConfigError
from hydra_edge.paths import Paths
from hydra_edge.privatefiles import changing, make_private_dir, read_private, write_private
from hydra_edge.tasks import canonical_name

_APP = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the holder of a token may do: whose history, which tasks (none named: all)."""

    app: str = ""  # empty: the owner
    user: str = ""  # empty: whomever the server serves
    tasks: tuple[str, ...] = ()
    read_only: bool = False

    @property
    def is_owner(self) -> bool:
        """Whether this is the person the server serves, not an app."""
        return not self.app

    def source(self, owners: str) -> str:
        """Return the source of what is added: the app's name, ``owners`` for the owner's."""
        return owners if self.is_owner else f"app:{self.app}"

    def allows(self, task: str) -> bool:
        """Return whether a task, by its canonical name, may be seen and used."""
        return not self.tasks or task in self.tasks


@dataclass(frozen=True, slots=True)
class TokenFiles:
    """Where tokens are kept."""

    owner: Path
    apps: Path

    @classmethod
    def of(cls, paths: Paths, owner: Path | None = None) -> TokenFiles:
        """Return the files of this installation; ``owner`` puts the owner's token elsewhere."""
        folder = paths.data / "server"
        return cls(owner or folder / "token", folder / "apps.json")


def new_token() -> str:
    """Return 256 random bits in a form that fits a header, a shell and a URL."""
    return f"he-{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _check_plain(path: Path) -> None:
    """Refuse what cannot hold tokens, such as a folder; nothing may be there yet."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise ConfigError(
            f"{path} is {kind}; expected a file for tokens, or nothing there yet. Give the path "
            "of a file."
        )


def _read(path: Path) -> str | None:
    """Read a file that must be its owner's alone; None if there is none.

    Raises
    ------
    ConfigError
        If it is no plain file, others can read it, or it cannot be read.
    """
    try:
        _check_plain(path)
        remedy = "Its tokens are not safe any more: remove it and start again."
        return read_private(path, name=str(path), remedy=remedy)
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(f"{path} cannot be read: {err}. Expected a text file of yours.") from err


def _write(path: Path, text: str) -> None:
    try:
        _check_plain(path)
        make_private_dir(path.parent)
        write_private(path, text)
    except OSError as err:
        raise ConfigError(
            f"{path} cannot be written: {err.strerror or err}. Expected a folder you may write to."
        ) from err


def owner_token(files: TokenFiles, *, renew: bool = False) -> str:
    """Return the owner's token, made on first use.

    ``renew`` makes the old one worthless, also to a server that is running.

    Raises
    ------
    ConfigError
        If the file can be read by others, holds no token, or cannot be written.
    """
    token = None if renew else read_owner(files)
    if token is None:
        token = new_token()
        _write(files.owner, f"{token}\n")
    return token


def read_owner(files: TokenFiles) -> str | None:
    """Return the owner's token, None if there is none yet.

    Raises
    ------
    ConfigError
        If the file can be read by others or holds no token.
    """
    kept = _read(files.owner)
    if kept is None:
        return None
    token = kept.strip()
    if len(token) < 16 or not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError(
            f"{files.owner} holds no token; expected at least 16 letters on one line. Make a new "
            "one with --new-token."
        )
    return token


def read_apps(files: TokenFiles) -> dict[str, Scope]:
    """Return the scope of each app by the digest of its token.

    Raises
    ------
    ConfigError
        If the file is damaged or can be read by others.
    """
    text = _read(files.apps)
    if text is None:
        return {}
    try:
        apps = {
            str(entry.pop("sha256")): Scope(**entry | {"tasks": tuple(entry["tasks"])})
            for entry in json.loads(text)["apps"]
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as err:
        raise ConfigError(
            f"{files.apps} is damaged ({type(err).__name__}). Remove it and give every app a new "
            "token with `hydra-edge serve token add`."
        ) from err
    return apps


@contextmanager
def _editing(files: TokenFiles) -> Iterator[dict[str, Scope]]:
    """Change the apps' file while nobody else does."""
    with changing(files.apps):
        apps = read_apps(files)
        yield apps
        entries: list[dict[str, Any]] = [
            {"sha256": digest} | asdict(scope) for digest, scope in apps.items()
        ]
        _write(files.apps, json.dumps({"apps": entries}, indent=2) + "\n")


def add_app(
    files: TokenFiles,
    app: str,
    *,
    user: str,
    tasks: Sequence[str] = (),
    read_only: bool = False,
) -> str:
    """Give an app a token of its own and return it; it is not kept and not shown again.

    Raises
    ------
    ConfigError
        If the name cannot be used or is taken.
    """
    if not _APP.fullmatch(app):
        raise ConfigError(
            f"App name {app!r} cannot be used; expected 1-32 lower-case letters, digits, '.', "
            "'-' or '_', such as 'editor'."
        )
    token = new_token()
    with _editing(files) as apps:
        if any(scope.app == app for scope in apps.values()):
            raise ConfigError(
                f"App {app!r} has a token already. Remove it first: hydra-edge serve token "
                f"remove {app}"
            )
        names = tuple(dict.fromkeys(canonical_name(task) for task in tasks))
        apps[_digest(token)] = Scope(app, user, names, read_only)
    return token


def remove_app(files: TokenFiles, app: str) -> None:
    """Make an app's token worthless, also to a server that is running.

    Raises
    ------
    ConfigError
        If there is no such app.
    """
    with _editing(files) as apps:
        digests = [digest for digest, scope in apps.items() if scope.app == app]
        if not digests:
            known = ", ".join(sorted(scope.app for scope in apps.values())) or "none"
            raise ConfigError(f"No app {app!r} has a token. Apps: {known}.")
        for digest in digests:
            del apps[digest]


def apps_of(files: TokenFiles, users: AbstractSet[str]) -> list[str]:
    """Return the names of the apps of users, in order.

    Raises
    ------
    ConfigError
        If the file is damaged or can be read by others.
    """
    return sorted(scope.app for scope in read_apps(files).values() if scope.user in users)


def remove_apps_of(files: TokenFiles, users: AbstractSet[str]) -> list[str]:
    """Make the tokens of all apps of users worthless; return the apps' names, in order.

    Whoever has those names later shall not be read by the apps of somebody else.

    Raises
    ------
    ConfigError
        If the file is damaged or can be read by others, or cannot be written.
    """
    if not apps_of(files, users):
        return []  # nothing is made or written
    with _editing(files) as apps:
        gone = {digest: scope.app for digest, scope in apps.items() if scope.user in users}
        for digest in gone:
            del apps[digest]
    return sorted(gone.values())


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with a file's content; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Doorkeeper:
    """Tells whose token a request carries, comparing in constant time.

    Parameters
    ----------
    further
        More tokens of the owner's, which are in no file and end with the server.
    """

    def __init__(self, files: TokenFiles, further: Sequence[str] = ()) -> None:
        self._files = files
        self._further = tuple(_digest(token) for token in further)
        self._owner: tuple[str, ...] = ()
        self._apps: dict[str, Scope] = {}
        self._owner_seen: tuple[int, int, int] | None = None
        self._apps_seen: tuple[int, int, int] | None = None
        self._owners()

    def scope(self, token: str) -> Scope | None:
        """Return what a token allows, or None if it is nobody's.

        Raises
        ------
        ConfigError
            If a file of tokens has become unusable.
        """
        digest = _digest(token)
        found: Scope | None = None
        for known in self._owners():
            if hmac.compare_digest(digest, known):
                found = Scope()
        for known, scope in self._current().items():
            if hmac.compare_digest(digest, known):
                found = scope
        return found

    def _owners(self) -> tuple[str, ...]:
        """Return the digests of the owner's tokens; the kept one read again if it has changed.

        One whose file is gone is good until another is there: a client may have taken it along.
        """
        seen = _state(self._files.owner)
        if seen != self._owner_seen:
            token = read_owner(self._files)
            if token is not None:
                self._owner = (_digest(token),)
            self._owner_seen = seen
        return (*self._owner, *self._further)

    def _current(self) -> dict[str, Scope]:
        """Return the apps, read again if their file has changed."""
        seen = _state(self._files.apps)
        if seen != self._apps_seen:
            self._apps = read_apps(self._files)
            self._apps_seen = seen
        return self._apps
