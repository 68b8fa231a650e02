"""LLM backends behind one Protocol: a local GGUF, or any OpenAI-compatible API.

What opens one is loaded when first asked for: ranking records needs none.
"""

from typing import TYPE_CHECKING, Any

from hydra_edge.llm.protocol import LLM

if TYPE_CHECKING:
    from hydra_edge.llm.models import ModelInfo, available_models, open_llm

__all__ = ["LLM", "ModelInfo", "available_models", "open_llm"]


if not TYPE_CHECKING:  # a checker that sees it believes in every name

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'hydra_edge.llm' has no attribute {name!r}")
        from hydra_edge.llm import models

        return getattr(models, name)
