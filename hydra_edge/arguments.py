"""What the Python API is given: what is no text or number is refused in words, before all else."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real  # numpy's numbers are some, too
from typing import Any

import numpy as np

from hydra_edge.errors import ConfigError


def check_text(name: str, value: Any) -> None:
    """Refuse what is not text.

    Raises
    ------
    ConfigError
        With what it was.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r:.80}; expected text.")


def check_count(name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no whole number, or one that is too small; None is left to its default.

    Raises
    ------
    ConfigError
        With the least there may be.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= least):
        raise ConfigError(f"{name} is {value!r:.80}; expected a whole number from {least} on.")


def check_whole(name: str, value: Any) -> None:
    """Refuse what is no whole number, of whatever sign.

    Raises
    ------
    ConfigError
        With what it was.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{name} is {value!r:.80}; expected a whole number.")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False: a text such as "no" would count as True.

    Raises
    ------
    ConfigError
        With what it was.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name} is {value!r:.80}; expected True or False.")


def check_wishes(max_tokens: Any, system: Any, seed: Any, **flags: Any) -> None:
    """Refuse what an answer cannot be asked for with; ``flags`` by their names.

    Raises
    ------
    ConfigError
        With what it was.
    """
    check_count("max_tokens", max_tokens, 1)
    check_text("system", system)
    check_whole("seed", seed)
    for name, flag in flags.items():
        check_flag(name, flag)


def check_llm(value: Any) -> None:
    """Refuse what is no LLM, a model's name above all; None is left to the settings.

    Raises
    ------
    ConfigError
        With what it was, and how a model is opened by its name.
    """
    needs = ("name", "is_remote", "render", "complete", "close")
    if value is not None and (isinstance(value, type) or not all(hasattr(value, n) for n in needs)):
        raise ConfigError(
            f"llm is {value!r:.80}; expected an object with {', '.join(needs)}. For a model's name "
            "give config=Config(model=NAME) instead, or what open_llm(...) returns."
        )


def check_kind(name: str, value: Any, kind: type) -> None:
    """Refuse what is of another class; None is left to its default.

    Raises
    ------
    ConfigError
        With what it was.
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{name} is {value!r:.80}; expected a {kind.__name__}.")


def check_several(name: str, value: Any, what: str) -> None:
    """Refuse what cannot be gone through one by one.

    Raises
    ------
    ConfigError
        With what it was.
    """
    if not isinstance(value, Iterable):
        raise ConfigError(f"{name} is {value!r:.80}; expected {what}.")


def check_seconds(name: str, value: Any) -> None:
    """Refuse what is no duration; None is left to its default.

    Raises
    ------
    ConfigError
        If it is no number, or below 0.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if value is not None and not (number and value >= 0.0):  # NaN is not
        raise ConfigError(f"{name} is {value!r:.80}; expected a number of seconds, 0 or more.")
