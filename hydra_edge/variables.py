"""The environment's variables that are ours: which one wins, and which is a slip of the finger."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches

from hydra_edge.errors import ConfigError

ENV_PREFIX = "HYDRA_EDGE_"
# Variables that are no settings; those of keys begin with KEY_.
_OTHERS = ("HOME", "DEBUG")
# How alike a variable and one of ours must be to be called a slip of the finger, and how far apart
# in length: MODEL_DIR, BASE_DIR or DB_URL may be those of an application.
_CLOSE = 0.8
_LONGER = 2
# How alike what is before one of our names must be to our prefix. HYDRA_ alone is of others.
_CLOSE_PREFIX = 0.9


def variable_over(name: str) -> str:
    """Return the environment variable that wins over a setting's file; empty if none is set."""
    variable = ENV_PREFIX + name.upper()
    return variable if os.environ.get(variable) else ""


def refuse_slips(settings: Iterable[str]) -> None:
    """Refuse a variable that seems to be one of ours mistyped: nobody would notice its absence.

    Others that begin like ours may be those of an application around us, so that where the prefix
    is mistyped the rest must be one of our names.

    Raises
    ------
    ConfigError
        With the name that is meant.
    """
    ours = [*(name.upper() for name in settings), *_OTHERS]
    for variable, value in sorted(os.environ.items()):
        name = variable.upper().removeprefix(ENV_PREFIX)
        if not value or name.startswith("KEY_"):
            continue
        if name == variable.upper():
            prefix, of_key, key = name.partition("KEY_")
            named = [(prefix, of_key + key)] if key else []
            named += [(name.removesuffix(one), one) for one in ours if name.endswith(one)]
            near = [one for prefix, one in named if _is_near_prefix(prefix)]
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
    if text.startswith(ENV_PREFIX.rstrip("_")) and text != ENV_PREFIX.rstrip("_"):
        return False  # another product's, of a longer name
    return bool(get_close_matches(text, [ENV_PREFIX], cutoff=_CLOSE_PREFIX))
