"""A GGUF's own chat template, filled in so that nobody's text can pose as its structure.

The template is rendered around placeholders; what it writes itself is tokenized with control
tokens, the messages put in for the placeholders without. A record that quotes such a token
stays plain text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra_edge.errors import BackendError
from hydra_edge.llm.request import without_system

# Private-use characters: no template writes them, and messages are kept out of the rendering.
_HOLE = re.compile("\ue000([0-9]+)\ue001")
WITHOUT = "Leave `chat:` out before the file's path (in Python: chat=False)."


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the prompt; ``trusted`` where the template wrote it."""

    text: str
    trusted: bool


class ChatTemplate:
    """A Jinja chat template from a model's metadata, rendered in a sandbox."""

    def __init__(self, source: str, *, model: str) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        self._model = model
        try:
            # The beginning-of-text token is put in by whoever tokenizes.
            self._render = Jinja2ChatFormatter(source, eos_token="", bos_token="")
        except Exception as err:  # a template is foreign code: it may fail in any way
            raise self._broken(err) from err

    def parts(self, messages: Sequence[Mapping[str, str]]) -> list[Part]:
        """Render messages; models that know no system role get it in the user's first turn.

        Raises
        ------
        BackendError
            If the template fails, or drops a message.
        """
        try:
            return self._fill(messages)
        except BackendError:
            folded = without_system(messages)
            if len(folded) == len(messages):
                raise
            return self._fill(folded)

    def _fill(self, messages: Sequence[Mapping[str, str]]) -> list[Part]:
        # Any: llama_cpp has a type of its own for a message of each role.
        holes: list[Any] = [
            {"role": m["role"], "content": f"\ue000{i}\ue001"} for i, m in enumerate(messages)
        ]
        try:
            rendered = str(self._render(messages=holes).prompt)
        except Exception as err:  # see above
            raise self._broken(err) from err
        pieces = _HOLE.split(rendered)
        if sorted(pieces[1::2]) != [str(i) for i in range(len(messages))]:
            raise self._broken("it does not show every message once")
        parts = [
            Part(messages[int(piece)]["content"], trusted=False) if i % 2 else Part(piece, True)
            for i, piece in enumerate(pieces)
        ]
        return [part for part in parts if part.text]

    def _broken(self, why: object) -> BackendError:
        return BackendError(
            f"The chat template of {self._model} cannot be used: {str(why)[:200]}. Expected one "
            f"that takes a user message. {WITHOUT}"
        )
