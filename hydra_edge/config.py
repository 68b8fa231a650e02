"""Settings: built-in defaults < ``config.toml`` < environment < flags."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from hydra_edge.errors import ConfigError
from hydra_edge.paths import Paths as Paths  # noqa: PLC0414 - applications have both from here
from hydra_edge.paths import check_user_name
from hydra_edge.paths import find_paths as find_paths  # noqa: PLC0414 - as above
from hydra_edge.privatefiles import changing, write_private
from hydra_edge.variables import ENV_PREFIX, refuse_slips, variable_over

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


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
    reasoning_effort: str = ""  # sent to a remote LLM as it is; empty: nothing is
    early_stop: bool = True  # ask no more of a closed set once the answer cannot change
    timeout_s: float = 60.0
    threads: int = 0  # 0: chosen for the machine
    offline: bool = False
    log: bool = True
    log_days: int = 0  # how long the log is kept at most; 0: until it is cleared

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
    "log_days": (0, 36500),
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
    refuse_slips(kinds)
    values = _file_settings(paths, kinds)
    for name, kind in kinds.items():
        # Programs that start others (compose files, CI) hand on a variable nobody set as empty.
        if env := os.environ.get(ENV_PREFIX + name.upper()):
            values[name] = _convert(name, env, kind, f"environment {ENV_PREFIX}{name.upper()}")
    return replace(Config(), **values)


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
