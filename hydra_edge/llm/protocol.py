"""What hydra-edge asks of an LLM, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion


@runtime_checkable
class LLM(Protocol):
    """A black box that samples answers to a prompt.

    An application brings its own model by giving any object of this shape. A personalizer asks
    it from one thread at a time; one that several share, and that cannot bear more, needs a lock
    of its own.
    """

    @property
    def name(self) -> str:
        """Identify the model: candidates are cached under it."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether a prompt leaves this machine."""
        ...

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """Return byte for byte what ``complete`` would send first.

        ``max_tokens`` defaults to the task's; both matter only where they are sent along.
        """
        ...

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
    ) -> list[Completion]:
        """Sample up to ``n`` answers: the first greedy, the others at ``temperature``.

        Parameters
        ----------
        prompt
            What to answer; its task says where an answer stops.
        n
            How many answers are wanted; fewer are a result, none is an error.
        temperature
            For all but the first answer; 0.0 makes every answer greedy.
        max_tokens
            Longest answer, in tokens.
        choices
            If given, every answer returned is a member of it, spelled as it is there.
        seed
            Answer ``i`` is drawn with ``seed + i``: same seed, same answers, where the
            backend can.
        on_token
            Called with each piece of text as it arrives; only for ``n == 1``. Put together, the
            pieces are the answer's text, but for white space around it.
        should_stop
            Asked between tokens, or again and again while a reply is awaited; may be called from
            any thread. Once it says True, what is finished is returned: fewer than ``n``, or
            nothing.
        on_candidate
            Called with each answer once it is finished.

        Returns
        -------
        list of Completion
            Stripped texts, in the order drawn; the greedy one is marked. One of those that share
            a request carries its ``prompt_tokens``.

        Raises
        ------
        ContextLengthError
            If the prompt plus ``max_tokens`` does not fit.
        BackendError
            If not one answer could be had, unless told to stop.

        Notes
        -----
        An object without ``should_stop`` or ``on_candidate`` is one too: it is then asked
        without, finishes every answer it began, and its answers are told all at the end. For a
        type checker, its ``complete`` takes ``**_: Any`` in their place.

        One that names ``on_short``, too, may be given a function to call with the error that kept
        some of the answers from coming.

        A personalizer takes an answer that means one of ``choices``, such as "The tag is horror."
        for "horror", for that member; one that means none has no vote.
        """
        ...

    def close(self) -> None:
        """Free the model; calling it twice is harmless."""
        ...
