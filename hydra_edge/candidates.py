"""Asking an LLM for candidates: how many, how long, and how much of a prompt fits its context."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from hydra_edge.config import Config, check_bounds
from hydra_edge.engine import Engine
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, Unfolding, unfold
from hydra_edge.tasks import says_length
from hydra_edge.types import Completion, Record

# How long answers of several lines may be follows from so many of the user's latest: such a share
# of them would have room. One record more seldom changes it, for it goes by steps.
_LATEST = 200
_OFTEN = 0.9
_TOKENS_STEP = 128
_MOST_TOKENS = 2048
_TOKEN_BYTES = 3  # English has four or five, German three, in an LLM with few words of it


@dataclass(frozen=True, slots=True)
class Sampling:
    """How candidates are drawn: ``n`` of them, the first greedy, ``shown`` records in a prompt."""

    n: int
    shown: int
    temperature: float

    @classmethod
    def of(
        cls,
        config: Config,
        n: int | None = None,
        shown: int | None = None,
        temperature: float | None = None,
    ) -> Sampling:
        """Return how to sample: what a call asks for, else as configured.

        Raises
        ------
        ConfigError
            If a number is none a setting can have.
        """
        n = config.candidates if n is None else n
        shown = config.records if shown is None else shown
        temperature = config.temperature if temperature is None else temperature
        check_bounds("candidates", n, "this call")
        check_bounds("records", shown, "this call")
        check_bounds("temperature", temperature, "this call")
        return cls(int(n), int(shown), float(temperature))  # numpy's numbers become Python's


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn from an LLM for one prompt.

    Attributes
    ----------
    n
        How many answers, the first of them greedy.
    temperature
        Of all but the first; 0.0 makes every answer greedy.
    max_tokens
        Longest answer, in tokens.
    seed
        Answer ``i`` is drawn with ``seed + i``: same seed, same answers, where the LLM can.
    """

    n: int
    temperature: float
    max_tokens: int
    seed: int = 0


def longest_answer(
    engine: Engine,
    llm: LLM,
    prompt: Prompt,
    records: Sequence[Record],
    *,
    no_history: bool = False,
) -> int:
    """Return how many tokens an answer may take where nobody asks for a number.

    One of several lines may be as long as nine in ten of the user's latest, unless their task file
    says how long; any other as its task says. For that a local LLM's context has a third of its
    room at most, lest too few records be shown, and none that the query needs. Of records that may
    not leave for a remote LLM not even their length is told.

    Parameters
    ----------
    records
        The user's own of the task, oldest first.
    no_history
        Whether a remote LLM may be told of none.
    """
    task, public_only = prompt.task, llm.is_remote
    least = task.max_tokens
    if task.kind != "text" or not task.multiline or says_length(engine.custom_tasks, task.name):
        return least
    told = () if public_only and no_history else reversed(records)
    latest = islice((r.output for r in told if not (public_only and r.private)), _LATEST)
    sizes = sorted(map(_tokens, latest))
    if not sizes:
        return least
    wanted = _TOKENS_STEP * math.ceil(sizes[math.ceil(_OFTEN * len(sizes)) - 1] / _TOKENS_STEP)
    most, context = _MOST_TOKENS, getattr(llm, "n_ctx", None)
    if context is not None:
        most = min(most, context // 3, context - _tokens(prompt.without_shots().completion_text()))
    return max(least, min(wanted, most))


def _tokens(text: str) -> int:
    """Return how many tokens a text has at most, in all likelihood."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return math.ceil(size / _TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who hears of answers while an LLM writes them, and who may stop it; None is nobody.

    Attributes
    ----------
    should_stop
        Asked again and again, from any thread; once it says True, what is finished is all.
    on_token
        Told each piece of the one answer as it arrives.
    on_candidate
        Told each answer once it is finished.
    on_cut
        Told how many records are left in the prompt whenever one is dropped for want of room,
        before the LLM is asked again.
    on_short
        Told what kept some of the answers from coming, as far as the LLM tells.
    """

    should_stop: Callable[[], bool] | None = None
    on_token: Callable[[str], None] | None = None
    on_candidate: Callable[[Completion], None] | None = None
    on_cut: Callable[[int], None] | None = None
    on_short: Callable[[Exception], None] | None = None


NO_CALLBACKS = Callbacks()  # for whoever only waits


def fit_to_context(prompt: Prompt, render: Callable[[Prompt], str]) -> tuple[Prompt, str]:
    """Return the prompt that would be sent, smaller as far as an LLM says so, and its rendering.

    ``render`` is the LLM's, for the length that an answer may have. One that does not know its
    context until it is asked renders the whole.

    Raises
    ------
    ContextLengthError
        If not even the beginning of the bare query fits.
    """
    while True:
        try:
            return prompt, render(prompt)
        except ContextLengthError:
            smaller = _smaller(prompt)
            if smaller is None:
                raise
            prompt = smaller


def _smaller(prompt: Prompt) -> Prompt | None:
    """Return a prompt with less: without its weakest record, else with less of the query."""
    return prompt.without_weakest() if prompt.shots else prompt.with_less_query()


def complete_within_context(
    llm: LLM, prompt: Prompt, draw: Draw, callbacks: Callbacks = NO_CALLBACKS, *, bare: int = 0
) -> tuple[Prompt, list[Completion]]:
    """Ask an LLM, dropping the weakest records, then the query's end, until the prompt fits.

    Parameters
    ----------
    bare
        How many answers more are drawn if no record is left in the prompt.

    Returns
    -------
    tuple of Prompt and list of Completion
        The prompt that was answered, and its answers.

    Raises
    ------
    ContextLengthError
        If not even the beginning of the bare query fits.
    BackendError
        If it gave what is no ``Completion`` with text.
    """
    choices = prompt.task.labels if prompt.task.kind != "text" else None
    while True:
        folded = prompt.is_indented
        try:
            completions = llm.complete(
                prompt, n=draw.n if prompt.shots else draw.n + bare, temperature=draw.temperature,
                max_tokens=draw.max_tokens, choices=choices or None, seed=draw.seed,
                on_token=_unfolding(callbacks.on_token) if folded else callbacks.on_token,
                **_listening(callbacks, folded=folded),
            )  # fmt: skip
            if not isinstance(completions, Iterable):
                raise _no_completion(completions, "a list of them")
            return prompt, [_taken(c, folded=folded) for c in completions]
        except ContextLengthError:
            smaller = _smaller(prompt)
            if smaller is None:
                raise
            cut, prompt = bool(prompt.shots), smaller
            if cut and callbacks.on_cut is not None:
                callbacks.on_cut(len(prompt.shots))


def _unfolding(on_token: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Return who is to be told of the pieces of an answer that may be indented as ours are.

    What is held back to the end, whoever knows the whole answer tells.
    """
    if on_token is None:
        return None
    unfolding = Unfolding()

    def tell(piece: str) -> None:
        if ready := unfolding.feed(piece):
            on_token(ready)

    return tell


def _listening(callbacks: Callbacks, *, folded: bool) -> dict[str, Any]:
    """Return what ``complete`` is given only if it is wanted: an application's need not know it."""
    heard = callbacks.on_candidate
    wishes = {
        "should_stop": callbacks.should_stop,
        "on_candidate": None
        if heard is None
        else lambda given: heard(_taken(given, folded=folded)),
        "on_short": callbacks.on_short,
    }
    return {name: wish for name, wish in wishes.items() if wish is not None}


def _taken(given: object, *, folded: bool) -> Completion:
    """Return a completion in plain types, whatever numbers an application's LLM counts in.

    ``folded``: its text may have the indentation of the answers that were shown. A
    log-probability that is not finite is none: its answer is one nevertheless.
    """
    if not isinstance(given, Completion) or not isinstance(given.text, str):
        raise _no_completion(given, "one with text")
    try:
        logprob = None if given.logprob is None else float(given.logprob)
        return replace(
            given,
            text=unfold(given.text) if folded else given.text,
            greedy=bool(given.greedy),
            tokens=int(given.tokens),
            prompt_tokens=int(given.prompt_tokens),
            logprob=logprob if logprob is not None and math.isfinite(logprob) else None,
        )
    except (TypeError, ValueError, OverflowError) as err:
        raise _no_completion(given, "numbers in tokens, prompt_tokens and logprob") from err


def _no_completion(given: object, expected: str) -> BackendError:
    return BackendError(
        f"The LLM returned what is no hydra_edge.types.Completion: got {given!r:.120}; expected "
        f"{expected}. Have its complete() return a list of Completion(text)."
    )


def sample_pool(
    llm: LLM, prompt: Prompt, draw: Draw, zero_shot: int, callbacks: Callbacks = NO_CALLBACKS
) -> tuple[Prompt, list[Completion]]:
    """Sample candidates, the last ``zero_shot`` of ``draw.n`` with no record shown.

    Returns
    -------
    tuple of Prompt and list of Completion
        The prompt with records that was answered, and the answers; short of some if the LLM
        gave fewer.

    Raises
    ------
    ContextLengthError
        If not even the beginning of the bare query fits.
    BackendError
        If not one answer could be had to the prompt with records.
    """
    with_records = replace(draw, n=draw.n - zero_shot)
    asked, completions = complete_within_context(
        llm, prompt, with_records, callbacks, bare=zero_shot
    )
    should_stop, heard = callbacks.should_stop, callbacks.on_candidate
    # Where no record had room, all were drawn without: asked again, it would say the same.
    if not zero_shot or not asked.shots or (should_stop is not None and should_stop()):
        return asked, completions
    callbacks = replace(
        callbacks,
        on_token=None,
        on_candidate=None if heard is None else lambda given: heard(_without_records(given)),
    )
    try:
        _, plain = complete_within_context(
            llm, asked.without_shots(), replace(draw, n=zero_shot), callbacks
        )
    except BackendError as err:
        plain = []  # a pool short of candidates is still a pool
        if callbacks.on_short is not None:
            callbacks.on_short(err)
    return asked, [*completions, *map(_without_records, plain)]


def _without_records(completion: Completion) -> Completion:
    return replace(completion, greedy=False, zero_shot=True)
