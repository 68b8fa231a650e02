"""hydra-edge: personalize a black-box LLM on your own device.

``Personalizer`` is the door for applications, ``Record`` what a history is made of. Both are
loaded when first asked for, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.types import Record

__version__ = "0.1.0"
__all__ = ["Personalizer", "Record", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Personalizer":
        from hydra_edge.personalizer import Personalizer

        return Personalizer
    if name == "Record":
        from hydra_edge.types import Record

        return Record
    raise AttributeError(f"module 'hydra_edge' has no attribute {name!r}")
