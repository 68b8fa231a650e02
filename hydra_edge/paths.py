"""Where things live: the folders of this installation, and in them the file of each person."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from hydra_edge.errors import ConfigError
from hydra_edge.variables import ENV_PREFIX

_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_USERS_SHOWN = 5  # where a name is told that nobody has


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and files of this installation; none is created by asking for its name."""

    data: Path
    config: Path
    cache: Path

    @property
    def users(self) -> Path:
        """One SQLite file per person."""
        return self.data / "users"

    @property
    def tasks(self) -> Path:
        """The user's own task files."""
        return self.config / "tasks"

    @property
    def config_file(self) -> Path:
        """Settings, in TOML."""
        return self.config / "config.toml"

    @property
    def keys_file(self) -> Path:
        """API keys, mode 0600, where no keyring serves."""
        return self.config / "keys.json"

    def user_file(self, user: str) -> Path:
        """Return the file of one person.

        Raises
        ------
        ConfigError
            If the name could not be a file name.
        """
        return self.users / f"{check_user_name(user)}.db"


def check_user_name(user: str) -> str:
    """Return a user's name if it can be a file's.

    Raises
    ------
    ConfigError
        If it cannot.
    """
    if not _USER_NAME.fullmatch(user):
        raise ConfigError(
            f"User name {user!r} cannot be used. Expected 1-64 letters a-z or A-Z, digits, "
            "'.', '_', '@' or '-', starting with a letter or digit."
        )
    return user


def other_users(file: Path) -> str:
    """Name the people there are beside the one of a file, those of the nearest names first.

    Empty if there are none.
    """
    found = {path.stem for path in file.parent.glob("*.db")} - {file.stem}
    names = sorted(filter(_USER_NAME.fullmatch, found))
    near = get_close_matches(file.stem, names, n=_USERS_SHOWN)
    names = [*near, *(name for name in names if name not in near)]
    more = len(names) - _USERS_SHOWN
    return ", ".join(names[:_USERS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` as the home it stands for; one of nobody's home stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path's own raises for nobody's home


def find_paths() -> Paths:
    """Return this installation's folders; ``HYDRA_EDGE_HOME`` moves all of them together."""
    home = os.environ.get(ENV_PREFIX + "HOME")
    if home:
        root = expanded(home).absolute()
        return Paths(data=root, config=root, cache=root / "cache")
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("hydra-edge", appauthor=False)
    try:
        return Paths(dirs.user_data_path, dirs.user_config_path, dirs.user_cache_path)
    except RuntimeError as err:
        raise ConfigError(
            f"This user has no home folder ({err}); expected one, or a folder for everything. Set "
            f"{ENV_PREFIX}HOME to a folder that only you can read."
        ) from err
