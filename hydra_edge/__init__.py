"""hydra-edge: personalize a black-box LLM on your own device."""

__version__ = "0.1.0"
