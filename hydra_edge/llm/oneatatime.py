"""An application's LLM made to fit: asked by one thread at a time, with what it does not know.

Owns the line of those who wait for it, and how its answers of a closed set are read.
"""

from __future__ import annotations

import inspect
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hydra_edge.errors import ConfigError
from hydra_edge.llm.members import find_member
from hydra_edge.llm.protocol import LLM
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion

# Between two questions whether one who waits for the LLM still wants it.
_PATIENCE_S = 0.2


class OneAtATime:
    """An LLM that is asked by one thread at a time, first come, first served.

    An application's LLM need not be safe for several threads, nor know ``should_stop`` and
    ``on_candidate``: without the one it finishes what it began, without the other its answers
    are told all at the end. It knows a parameter if its ``complete`` names it. Nor need it spell
    a member of a closed set exactly: an answer that means one is taken for it.

    Parameters
    ----------
    inner
        The LLM that does the work.
    """

    def __init__(self, inner: LLM) -> None:
        self.inner = inner
        self._knows = frozenset(inspect.signature(inner.complete).parameters)
        self._line: deque[int] = deque()  # the thread whose turn it is, then those that wait
        self._change = threading.Condition()  # of the line

    def __repr__(self) -> str:
        return repr(self.inner)

    @property
    def name(self) -> str:
        """See ``LLM.name``."""
        return self.inner.name

    @property
    def is_remote(self) -> bool:
        """See ``LLM.is_remote``."""
        return self.inner.is_remote

    @property
    def n_ctx(self) -> int | None:
        """Context window in tokens, prompt and answer together; None if the LLM does not say."""
        size = getattr(self.inner, "n_ctx", None)
        return size if isinstance(size, int) else None

    def render(
        self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0, stream: bool = False
    ) -> str:
        """See ``LLM.render``; ``stream`` asks what a call with ``on_token`` would send.

        Where the LLM's ``render`` does not name it, that is the same.
        """
        named = stream and "stream" in inspect.signature(self.inner.render).parameters
        known: dict[str, Any] = {"stream": True} if named else {}
        return self.inner.render(prompt, max_tokens=max_tokens, seed=seed, **known)

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        temperature: float = 0.8,
        max_tokens: int = 48,
        choices: Sequence[str] | None = None,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
        on_short: Callable[[Exception], None] | None = None,
    ) -> list[Completion]:
        """See ``LLM.complete``; waits for its turn first.

        ``on_short`` is told what kept some of the answers from coming, by an LLM that knows it.

        With ``choices``, an answer that means a member is returned and told as that member; one
        that means none stays as it came.

        Raises
        ------
        ConfigError
            If it is called by a callback of an answer under way.
        """

        def tell(completion: Completion) -> None:
            if on_candidate is not None:
                on_candidate(_as_member(completion, choices))

        wishes = {
            "should_stop": should_stop,
            "on_candidate": None if on_candidate is None else tell,
            "on_short": on_short,
        }
        known: dict[str, Any] = {
            name: wish for name, wish in wishes.items() if wish is not None and name in self._knows
        }
        with self.turn(should_stop) as mine:
            if not mine or (should_stop is not None and should_stop()):
                return []
            completions = self.inner.complete(
                prompt, n=n, temperature=temperature, max_tokens=max_tokens, choices=choices,
                seed=seed, on_token=on_token, **known,
            )  # fmt: skip
            # One that is written as a generator works within its turn, too. Whoever asked says what
            # is wrong with a result that is no list.
            if isinstance(completions, Iterable) and (
                choices or not isinstance(completions, Sequence)
            ):
                completions = [_as_member(completion, choices) for completion in completions]
            if on_candidate is not None and "on_candidate" not in known:
                for completion in completions if isinstance(completions, Sequence) else ():
                    on_candidate(completion)
            return completions

    @contextmanager
    def turn(self, should_stop: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Wait until no thread asks the LLM, and keep it so.

        It is told whether it is so: no more is waited once ``should_stop`` says True.
        """
        me = threading.get_ident()
        with self._change:
            if me in self._line:
                raise ConfigError(
                    "Cannot use the LLM from a callback of its own answer: got a call before "
                    "that answer is finished; expected one afterwards. Return from the callback "
                    "first; to end the answer, let should_stop return True."
                )
            self._line.append(me)
        try:
            mine = self._comes(me, should_stop)
            if mine:
                yield True
        finally:
            with self._change:
                self._line.remove(me)
                self._change.notify_all()
        if not mine:
            yield False

    def _comes(self, me: int, should_stop: Callable[[], bool] | None) -> bool:
        """Wait for the turn of a thread in the line; False once it need not wait any more."""
        while True:
            with self._change:
                if self._change.wait_for(lambda: self._line[0] == me, _PATIENCE_S):
                    return True
            # Not within: what it looks at may take its time, and the line moves on meanwhile.
            if should_stop is not None and should_stop():
                return False

    def close(self) -> None:
        """Close the inner LLM once nobody asks it."""
        with self.turn():
            self.inner.close()


def _as_member(given: Any, choices: Sequence[str] | None) -> Any:
    """Return an answer of a closed set as the member it means; as it came if it means none.

    What is no answer with text stays, too: whoever asked says what is wrong with it.
    """
    if not choices or not isinstance(given, Completion) or not isinstance(given.text, str):
        return given
    if given.text in choices:
        return given
    member = find_member(given.text, choices)
    return given if member is None else replace(given, text=member)
