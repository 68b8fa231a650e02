"""Asking an LLM for candidates: how many, what fits its context, with and without records shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from hydra_edge.config import Config, check_bounds
from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, unfold
from hydra_edge.types import Completion


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


def complete_within_context(
    llm: LLM,
    prompt: Prompt,
    *,
    n: int,
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_candidate: Callable[[Completion], None] | None = None,
    on_cut: Callable[[int], None] | None = None,
    on_short: Callable[[Exception], None] | None = None,
) -> tuple[Prompt, list[Completion]]:
    """Ask an LLM, dropping the weakest records, then the query's end, until the prompt fits.

    ``on_cut`` is told how many records are left, before it is asked again; ``on_short``, by an LLM
    that tells, what kept some of the answers from coming.

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
    listening: dict[str, Any] = {}  # an application's LLM need not know these two
    if should_stop is not None:
        listening["should_stop"] = should_stop
    if on_candidate is not None:
        listening["on_candidate"] = lambda c: on_candidate(_taken(c))
    if on_short is not None:
        listening["on_short"] = on_short
    while True:
        try:
            completions = llm.complete(
                prompt, n=n, temperature=temperature, max_tokens=max_tokens,
                choices=choices or None, seed=seed, on_token=on_token, **listening,
            )  # fmt: skip
            if not isinstance(completions, Iterable):
                raise _no_completion(completions, "a list of them")
            return prompt, [_taken(c) for c in completions]
        except ContextLengthError:
            if not prompt.shots:
                shorter = prompt.with_less_query()
                if shorter is None:
                    raise
                prompt = shorter
                continue
            prompt = prompt.without_weakest()
            if on_cut is not None:
                on_cut(len(prompt.shots))


def _taken(given: object) -> Completion:
    """Return a completion in plain types, whatever numbers an application's LLM counts in.

    A log-probability that is not finite is none: its answer is one nevertheless.
    """
    if not isinstance(given, Completion) or not isinstance(given.text, str):
        raise _no_completion(given, "one with text")
    try:
        logprob = None if given.logprob is None else float(given.logprob)
        return replace(
            given,
            text=unfold(given.text),
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
    llm: LLM,
    prompt: Prompt,
    *,
    n: int,
    zero_shot: int,
    temperature: float,
    max_tokens: int,
    seed: int = 0,
    on_token: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_candidate: Callable[[Completion], None] | None = None,
    on_cut: Callable[[int], None] | None = None,
    on_short: Callable[[Exception], None] | None = None,
) -> tuple[Prompt, list[Completion]]:
    """Sample ``n`` candidates, the last ``zero_shot`` of them with no record shown.

    ``on_cut`` is told how many records are left whenever one is dropped for want of room;
    ``on_short`` what kept some of the answers from coming, as far as the LLM tells.

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
    asked, completions = complete_within_context(
        llm, prompt, n=n - zero_shot, temperature=temperature, max_tokens=max_tokens, seed=seed,
        on_token=on_token, should_stop=should_stop, on_candidate=on_candidate, on_cut=on_cut,
        on_short=on_short,
    )  # fmt: skip
    if not zero_shot or (should_stop is not None and should_stop()):
        return asked, completions

    def heard(completion: Completion) -> None:
        if on_candidate is not None:
            on_candidate(_without_records(completion))

    try:
        _, plain = complete_within_context(
            llm, asked.without_shots(), n=zero_shot, temperature=temperature,
            max_tokens=max_tokens, seed=seed, should_stop=should_stop,
            on_candidate=None if on_candidate is None else heard, on_short=on_short,
        )  # fmt: skip
    except BackendError as err:
        plain = []  # a pool short of candidates is still a pool
        if on_short is not None:
            on_short(err)
    return asked, [*completions, *map(_without_records, plain)]


def _without_records(completion: Completion) -> Completion:
    return replace(completion, greedy=False, zero_shot=True)
