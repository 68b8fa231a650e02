"""Where the name of a task stands beside the history: settings, apps, hooks, sources."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra_edge.cli import options
from hydra_edge.cli.session import settings
from hydra_edge.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hydra_edge.server.tokens import Scope
    from hydra_edge.types import RenameReceipt

_SOURCES = 5  # that are named, at most


@dataclass(frozen=True, slots=True)
class Place:
    """What names a task still, and how that is changed."""

    where: str
    change: str


def still_named(renamed: RenameReceipt, user: str, sources: Iterable[str]) -> list[Place]:
    """Find what names a task by its old name, as far as can be known.

    Parameters
    ----------
    sources
        Where the records come from that were renamed.
    """
    names, known = list(sources), (renamed.old, renamed.new)
    return [
        *_setting(*known),
        *_apps(*known, user),
        *_hooks(*known, user, names),
        *_clients(*known, user),
        *_imports(*known, names),
    ]


def _setting(old: str, new: str) -> Iterator[Place]:
    from hydra_edge.tasks import canonical_name
    from hydra_edge.variables import variable_over

    if canonical_name(settings()[0].task) != old:
        return
    if variable := variable_over("task"):
        yield Place(f"the variable {variable}", f"set it to {new}")
    else:
        yield Place("the setting task", options.command("config", "set", "task", new))


def apps_let_in(old: str, new: str, user: str) -> list[str]:
    """Return the apps that may not use a task as it is called, but may under a new name."""
    try:
        scopes = _scopes(user)
    except ConfigError:  # the server serves nobody then
        return []
    return [scope.app for scope in scopes if scope.allows(new) and not scope.allows(old)]


def _scopes(user: str) -> list[Scope]:
    from hydra_edge.server.tokens import TokenFiles, read_apps

    apps = read_apps(TokenFiles.of(settings()[1])).values()
    return [scope for scope in apps if scope.user == user]


def _apps(old: str, new: str, user: str) -> Iterator[Place]:
    try:
        scopes = _scopes(user)
    except ConfigError as err:
        yield Place("apps, maybe", str(err))
        return
    for scope in scopes:
        if old in scope.tasks:
            remove = options.command("serve", "token", "remove", scope.app)
            yield Place(
                f"the token of the app {scope.app}",
                f"{remove}, then give it one with --task {new}",
            )


def _hooks(old: str, new: str, user: str, sources: Iterable[str]) -> Iterator[Place]:
    """Look into the repositories that records come from, and into the one we stand in."""
    from hydra_edge.githook import Repository, hooks

    roots: set[Path] = set()
    for folder in (".", *(name.removeprefix("git:") for name in sources if name[:4] == "git:")):
        with suppress(ConfigError, OSError, ValueError):
            repository = Repository(Path(folder))
            found = None if repository.root in roots else hooks.installed(repository)
            roots.add(repository.root)
            words = [] if found is None else found.options
            if _names(words, old, user):
                place = str(repository.root)
                again = options.command("git-hook", "install", repo=place, task=new)
                yield Place(f"the hooks of {place}", f"{again} (and the options they had)")


def _clients(old: str, new: str, user: str) -> Iterator[Place]:
    from hydra_edge.mcp import clients
    from hydra_edge.program import NAME

    for client in clients.CLIENTS:
        path = clients.own_config_path(client)
        try:
            words = json.loads(path.read_text(encoding="utf-8-sig"))["mcpServers"][NAME]["args"]
            found = _names(words, old, user)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # nothing of ours
            continue
        if found:
            again = options.command("mcp", "install", "--write", client=client, task=new)
            yield Place(str(path), f"{again} (and the options it had)")


def _names(words: list[str], task: str, user: str) -> bool:
    """Tell whether a command's words name a task, and are for this user."""

    def option(name: str) -> str | None:
        return words[words.index(name) + 1] if name in words else None

    return option("--task") == task and (option("--user") or settings()[0].user) == user


def _imports(old: str, new: str, sources: Iterable[str]) -> Iterator[Place]:
    from hydra_edge.records import is_import

    again = [name for name in sources if is_import(name)]
    if again:
        more = f" and {len(again) - _SOURCES} more" if len(again) > _SOURCES else ""
        yield Place(
            f"imports of {', '.join(again[:_SOURCES])}{more}",
            f"import them with --task {new} from now on, or their records leave it",
        )
