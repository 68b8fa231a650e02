"""A chat answer as server-sent events: its beginning, its pieces, how far it is, its end.

Comments carry no text of anybody; what comes in events put together is the whole answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hydra_edge.errors import HydraError
from hydra_edge.server.chat import ChatAnswer, ChatRequest, first_stop, shared_json
from hydra_edge.server.refusal import error_json
from hydra_edge.server.views import to_json
from hydra_edge.types import JsonDict


class Until:
    """Pass a text on up to the first of its stops, in pieces that no stop can take back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._text = ""
        self._given = 0

    def feed(self, piece: str) -> str:
        """Add a piece; return what can be passed on."""
        self._text += piece
        begun = [self._begun(stop) for stop in self._stops]
        safe = min([first_stop(self._text, self._stops, self._given), *begun])
        ready = self._text[self._given : safe]
        self._given = max(self._given, safe)
        return ready

    def _begun(self, stop: str) -> int:
        """Return where the text's end may be the beginning of a stop; the end if nowhere."""
        size = len(self._text)
        for length in range(min(len(stop) - 1, size - self._given), 0, -1):
            if self._text.endswith(stop[:length]):
                return size - length
        return size


class ChatEvents:
    """The events of one answer, from when the LLM begins to be asked.

    Parameters
    ----------
    asked
        What was asked for.
    generation_id
        The id the answer will have.
    base_id
        The base that chooses.
    """

    def __init__(self, asked: ChatRequest, generation_id: str, base_id: str) -> None:
        self._asked = asked
        self._shared = shared_json(asked, generation_id, base_id)
        self._until = Until(asked.stop)
        self._sent = 0  # characters of the first choice

    def begin(self) -> str:
        """Return the first event: the answer's id, and who speaks."""
        return self._event(0, {"role": "assistant", "content": ""})

    def piece(self, text: str) -> str:
        """Return the event of a piece of the only choice; empty while a stop may be in it."""
        ready = self._until.feed(text)
        self._sent += len(ready)
        return self._event(0, {"content": ready}) if ready else ""

    def progress(self, done: int, wanted: int) -> str:
        """Return a comment, which keeps a client from thinking that nothing happens."""
        return f": {done} of {wanted} candidates\n\n"

    def end(self, answer: ChatAnswer) -> Iterator[str]:
        """Yield what is missing of an answer; the last choice's end carries our own object."""
        for i, (text, end) in enumerate(answer.choices):
            if i:
                yield self._event(i, {"role": "assistant", "content": ""})
            rest = text if i else text[self._sent :]
            if rest:
                yield self._event(i, {"content": rest})
            last = i == len(answer.choices) - 1
            yield self._event(i, {}, end, {"hydra_edge": answer.ours} if last else {})
        if self._asked.include_usage:
            yield self._line({"choices": [], "usage": answer.usage})
        yield "data: [DONE]\n\n"

    def failed(self, error: HydraError) -> str:
        """Return the event that ends an answer which cannot be given."""
        return f"data: {to_json(error_json(error))}\n\n"

    def _event(
        self, index: int, delta: JsonDict, end: str | None = None, more: JsonDict | None = None
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
        usage = {"usage": None} if self._asked.include_usage else {}
        return self._line({"choices": [choice]} | usage | (more or {}))

    def _line(self, part: JsonDict) -> str:
        return f"data: {to_json(self._shared | {'object': 'chat.completion.chunk'} | part)}\n\n"
