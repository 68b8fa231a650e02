"""The name an LLM is given by (``-m``, the setting ``model``), read here and nowhere else.

Knows which kinds of names there are. Whether anything answers to one, ``models`` knows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hydra_edge.paths import expanded

REMOTE, CHAT = "openai:", "chat:"
PACKAGED = ("smollm2", "gemma3")


@dataclass(frozen=True, slots=True)
class ModelName:
    """What a name means.

    ``target`` is a packaged model in lower case, a file's path as it was given, or what the model
    is called at its API; ``chat`` is a file's, to be prompted by the model's own template.
    """

    text: str  # as given, but for blanks around it
    kind: Literal["default", "packaged", "file", "remote", "unknown"]
    target: str = ""
    chat: bool = False

    @property
    def path(self) -> Path:
        """The file of a name that is one."""
        return expanded(self.target)

    def has_file(self) -> bool:
        """Whether it names a file that is there."""
        try:
            return self.kind == "file" and self.path.is_file()
        except OSError:  # longer than a name can be, or where we may not look
            return False

    def anywhere(self) -> str:
        """Return the name as it means the same from any folder."""
        if self.kind != "file":
            return self.text
        return f"{CHAT if self.chat else ''}{self.path.absolute()}"


def read_name(text: str) -> ModelName:
    """Read a name; anything can be one, if perhaps of nothing."""
    text = text.strip()
    if not text:
        return ModelName(text, "default")
    if text.startswith(REMOTE):
        return ModelName(text, "remote", text.removeprefix(REMOTE).strip())
    if text.startswith(CHAT):
        return ModelName(text, "file", text.removeprefix(CHAT), chat=True)
    if text.lower().endswith(".gguf") or os.sep in text:
        return ModelName(text, "file", text)
    known = text.lower() in PACKAGED
    return ModelName(text, "packaged" if known else "unknown", text.lower())
