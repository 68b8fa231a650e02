"""LLM backends behind one Protocol: a local GGUF, or any OpenAI-compatible API."""

from hydra_edge.llm.models import ModelInfo, available_models, open_llm
from hydra_edge.llm.protocol import LLM

__all__ = ["LLM", "ModelInfo", "available_models", "open_llm"]
