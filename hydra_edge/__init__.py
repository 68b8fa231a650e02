"""hydra-edge: personalize a black-box LLM on your own device.

``Personalizer`` is the door for applications, ``AsyncPersonalizer`` the one for programs with
an event loop, ``Record`` what a history is made of, ``HydraError`` what any of them raises.
All are loaded when first asked for, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra_edge.aio import AsyncPersonalizer
    from hydra_edge.errors import HydraError
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import Record

__version__ = "0.1.0"
__all__ = ["AsyncPersonalizer", "HydraError", "Personalizer", "Record", "__version__"]

_HOME = {
    "AsyncPersonalizer": "hydra_edge.aio",
    "HydraError": "hydra_edge.errors",
    "Personalizer": "hydra_edge.personalizer",
    "Record": "hydra_edge.types",
}


if not TYPE_CHECKING:  # a checker that sees it believes in every name

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'hydra_edge' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
