"""Settings and where things live: built-in defaults < ``config.toml`` < environment < flags."""

from __future__ import annotations

import glob
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from hydra_edge.errors import ConfigError

ENV_PREFIX = "HYDRA_EDGE_"
_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# Variables that are no settings; those of keys begin with KEY_.
_OTHER_VARIABLES = ("HOME", "DEBUG")
# How alike a variable and one of ours must be to be called a slip of the finger, and how far apart
# in length: MODEL_DIR, BASE_DIR or DB_URL may be those of an application.
_CLOSE = 0.8
_LONGER = 2
# How alike what is before one of our names must be to our prefix. HYDRA_ alone is of others.
_CLOSE_PREFIX = 0.9
_USERS_SHOWN = 5  # where a name is told that nobody has
_LOCK_WAIT_S = 10.0
# A temporary file nobody wrote to for so long belongs to a program that was killed.
_LEFT_OVER_S = 3600.0
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


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
    names = sorted(path.stem for path in file.parent.glob("*.db") if path.stem != file.stem)
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
    return Paths(dirs.user_data_path, dirs.user_config_path, dirs.user_cache_path)


def make_private_dir(path: Path) -> None:
    """Create a folder only its owner can enter, and so those of ours above it that are missing.

    Folders that are there, and others that have to be made, are not ours to close.

    Raises
    ------
    ConfigError
        If it cannot be created.
    """
    paths = find_paths()
    roots = (paths.data, paths.config, paths.cache)
    above = [parent for parent in path.parents if any(map(parent.is_relative_to, roots))]
    try:
        for folder in (*reversed(above), path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise ConfigError(
            f"Cannot create the folder {path}: {err.strerror or err}. Expected a writable place. "
            f"Set {ENV_PREFIX}HOME to one."
        ) from err


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, with its default; ``HYDRA_EDGE_<NAME>`` overrides each, if not empty."""

    user: str = "me"
    task: str = ""  # empty: the task most of the user's records belong to
    model: str = ""  # empty: the bundled local model if installed, else none
    base_url: str = "https://api.openai.com/v1"
    bundle: str = ""  # empty: the base shipped with the package
    candidates: int = 8
    records: int = 4
    temperature: float = 0.8
    early_stop: bool = True  # ask no more of a closed set once the answer cannot change
    timeout_s: float = 60.0
    threads: int = 0  # 0: chosen for the machine
    offline: bool = False
    log: bool = True

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            check_bounds(name, getattr(self, name), "the settings")


# The least and the greatest value of a setting that is a number. More threads than this take all
# memory before the first is of use; more candidates or records than this fit no LLM.
_BOUNDS: dict[str, tuple[float, float]] = {
    "candidates": (1, 64),
    "records": (0, 64),
    "temperature": (0.0, 10.0),
    "timeout_s": (0.001, 86400.0),
    "threads": (0, 256),
}
_EXPECTED: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def check_bounds(name: str, value: Any, origin: str) -> None:
    """Refuse a number no setting of that name can have; ``origin`` says who gave it.

    Raises
    ------
    ConfigError
        With the least and the greatest there may be.
    """
    least, most = _BOUNDS[name]
    kind = Integral if isinstance(least, int) else Real  # numpy's numbers are some, too
    number = isinstance(value, kind) and not isinstance(value, bool)
    if not (number and least <= value <= most):  # nor is NaN
        raise ConfigError(
            f"{origin}: {name} = {value!r} cannot be used; expected {least} or more, and {most} "
            "at most. Correct it."
        )


def _convert(name: str, value: Any, kind: type, origin: str) -> Any:
    """Read a setting as its type; text (from the environment) is parsed, nothing is guessed."""
    wrong = ConfigError(
        f"{origin}: {name} = {value!r} cannot be used; expected {_EXPECTED[kind]}. Correct it."
    )
    if kind is bool and isinstance(value, str):
        if value.strip().lower() not in _TRUE | _FALSE:
            raise wrong
        return value.strip().lower() in _TRUE
    if kind in (int, float) and isinstance(value, str):
        try:
            value = kind(value)
        except ValueError as err:
            raise wrong from err
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise wrong
    if name in _BOUNDS:
        check_bounds(name, value, origin)
    if name == "user":
        try:
            check_user_name(str(value))
        except ConfigError as err:
            raise ConfigError(f"{origin}: {err}") from err
    return value


def _kinds() -> dict[str, type]:
    default = Config()
    return {f.name: type(getattr(default, f.name)) for f in fields(Config)}


def _read_toml(file: Path) -> dict[str, Any]:
    """Read ``config.toml``; one that is not there is empty."""
    import tomllib

    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(
            f"{file} cannot be read: {err}. Expected TOML; correct or remove it."
        ) from err


def _file_settings(paths: Paths, kinds: dict[str, type], *, leave: str = "") -> dict[str, Any]:
    """Read the settings of ``config.toml``, but the one that is about to be replaced."""
    file = paths.config_file
    raw = _read_toml(file)
    raw.pop(leave, None)
    if unknown := [name for name in raw if name not in kinds]:
        raise ConfigError(f"{file}: unknown setting {unknown[0]!r}. Known: {', '.join(kinds)}.")
    return {name: _convert(name, value, kinds[name], str(file)) for name, value in raw.items()}


def load_config(paths: Paths) -> Config:
    """Read the settings in force.

    Raises
    ------
    ConfigError
        If the file is not TOML, or a setting is unknown, of the wrong type or out of bounds, or
        a variable seems to be one of ours mistyped.
    """
    kinds = _kinds()
    _refuse_slips(kinds)
    values = _file_settings(paths, kinds)
    for name, kind in kinds.items():
        # Programs that start others (compose files, CI) hand on a variable nobody set as empty.
        if env := os.environ.get(ENV_PREFIX + name.upper()):
            values[name] = _convert(name, env, kind, f"environment {ENV_PREFIX}{name.upper()}")
    return replace(Config(), **values)


def _refuse_slips(kinds: Iterable[str]) -> None:
    """Refuse a variable that seems to be one of ours mistyped: nobody would notice its absence.

    Others that begin like ours may be those of an application around us, so that where the prefix
    is mistyped the rest must be one of our names.
    """
    ours = [*(name.upper() for name in kinds), *_OTHER_VARIABLES]
    for variable, value in sorted(os.environ.items()):
        name = variable.upper().removeprefix(ENV_PREFIX)
        if not value or name.startswith("KEY_"):
            continue
        if name == variable.upper():
            named = [one for one in ours if name.endswith(one)]
            near = [one for one in named if _is_near_prefix(name.removesuffix(one))]
        else:
            alike = [one for one in ours if abs(len(one) - len(name)) <= _LONGER]
            near = [one for one in alike if sorted(one) == sorted(name)]  # two letters swapped
            near = near or get_close_matches(name, alike, n=1, cutoff=_CLOSE)
        if near and variable != (meant := ENV_PREFIX + near[0]):
            raise ConfigError(
                f"environment {variable}: unknown setting; did you mean {meant}? Rename or unset "
                "it."
            )


def _is_near_prefix(text: str) -> bool:
    return bool(get_close_matches(text, [ENV_PREFIX], cutoff=_CLOSE_PREFIX))


def way_online(paths: Paths) -> str:
    """Say what switches ``offline`` off: wherever it was switched on, setting, variable or flag."""
    try:
        stays = load_config(paths).offline
    except ConfigError:  # an application that has settings of its own need not have a sound file
        stays = False
    if not stays:
        return "leave --offline out"
    if variable := variable_over("offline"):
        return f"unset {variable}"
    return "run `hydra-edge config set offline false`"


def variable_over(name: str) -> str:
    """Return the environment variable that wins over a setting's file; empty if none is set."""
    variable = ENV_PREFIX + name.upper()
    return variable if os.environ.get(variable) else ""


def save_setting(paths: Paths, name: str, value: str) -> None:
    """Write one setting to ``config.toml``, keeping the file's comments.

    Raises
    ------
    ConfigError
        If the setting is unknown, its value cannot be used, or the file is unusable.
    """
    kinds = _kinds()
    if name not in kinds:
        raise ConfigError(f"Unknown setting {name!r}. Known: {', '.join(kinds)}.")
    import tomlkit

    converted = _convert(name, value, kinds[name], "config set")
    with changing(paths.config_file):
        _file_settings(paths, kinds, leave=name)  # refuse to edit a file that cannot be read
        try:
            file = paths.config_file
            text = file.read_text(encoding="utf-8-sig") if file.exists() else ""
            document = tomlkit.parse(text)
            document[name] = converted
            write_private(paths.config_file, tomlkit.dumps(document))
        except OSError as err:
            raise ConfigError(f"Cannot write {paths.config_file}: {err.strerror or err}.") from err


def unset_setting(paths: Paths, name: str) -> bool:
    """Take one setting out of ``config.toml``, known or not, keeping the rest of the file.

    Returns
    -------
    bool
        Whether it was there.

    Raises
    ------
    ConfigError
        If it is neither a setting nor in the file, or the file is unusable.
    """
    import tomlkit

    kinds, file = _kinds(), paths.config_file
    if name not in _read_toml(file):
        if name not in kinds:
            raise ConfigError(f"Unknown setting {name!r}. Known: {', '.join(kinds)}.")
        return False
    with changing(file):
        try:
            document = tomlkit.parse(file.read_text(encoding="utf-8-sig"))
            document.pop(name, None)
            write_private(file, tomlkit.dumps(document))
        except OSError as err:
            raise ConfigError(f"Cannot write {file}: {err.strerror or err}.") from err
    return True


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Read, change and write a file of ours while no other program does; its folder is made.

    Raises
    ------
    ConfigError
        If another program keeps changing it, or its folder cannot be made or written to.
    """
    from filelock import FileLock, Timeout

    make_private_dir(file.parent)
    lock = FileLock(file.with_suffix(".lock"), timeout=_LOCK_WAIT_S, mode=0o600)
    try:
        lock.acquire()
    except Timeout as err:
        raise ConfigError(
            f"{file} is being changed by another program for {_LOCK_WAIT_S:g} s. Try again."
        ) from err
    except OSError as err:
        raise ConfigError(
            f"Cannot write {file}: {err.strerror or err}. Expected a folder you may write to."
        ) from err
    try:
        yield
    finally:
        lock.release()


def remove_left_over(target: Path, *, like: str = "") -> None:
    """Remove the temporary files that killed programs left of writing a file, hours ago.

    They stand beside it and are called ``.NAME.ANYTHING.tmp``. ``like`` is a pattern of names
    instead of the target's own, where several of a kind are in its folder. What cannot be removed
    stays: the file can be written nevertheless.
    """
    latest = time.time() - _LEFT_OVER_S
    with suppress(OSError):
        for part in target.parent.glob(f".{like or glob.escape(target.name)}.*.tmp"):
            with suppress(OSError):
                if part.lstat().st_mtime < latest:
                    part.unlink()


def write_private(path: Path, text: str) -> None:
    """Replace a file's content in one step, mode 0600: a crash leaves the old or the new one.

    A link stays: the file it leads to is replaced. What is no file (a pipe, a device) is
    written to.
    """
    try:
        replaces = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        replaces = True
    if not replaces:
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text)
        return
    target = Path(os.path.realpath(path))
    remove_left_over(target)
    # Of this call alone: several threads may save a file at once.
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
