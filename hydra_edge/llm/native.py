"""llama-cpp-python, the extra ``local``: whether it is here, and importing it in silence."""

from __future__ import annotations

import importlib.util
import logging
from types import ModuleType

from hydra_edge.errors import BackendError

INSTALL = "pip install '.[local]' in a clone of hydra-edge"
NOT_INSTALLED = f"A local model needs llama-cpp-python, which is not installed. Run {INSTALL}."


def is_installed() -> bool:
    """Whether it is here, without importing it."""
    return importlib.util.find_spec("llama_cpp") is not None


def import_llama_cpp() -> ModuleType:
    """Import llama-cpp-python with its log silenced.

    Raises
    ------
    BackendError
        If it is not installed, or its library cannot be loaded.
    """
    # Its log callback prints whatever passes this logger's level straight to stderr.
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
    try:
        import llama_cpp
    except ImportError as err:
        raise BackendError(NOT_INSTALLED) from err
    except (OSError, RuntimeError) as err:
        raise BackendError(
            f"llama-cpp-python is installed but its library cannot be loaded: {err}. Reinstall "
            "it: pip install --force-reinstall --no-cache-dir llama-cpp-python."
        ) from err
    return llama_cpp
