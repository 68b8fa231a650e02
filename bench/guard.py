"""Rules of honesty, checked on every query: a measurement that breaks one stops.

Owns what counts as a leak. Refuses to repair: a run with a leak has no result.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.data import UserHistory, fingerprint
from hydra_edge.bundle import Bundle
from hydra_edge.errors import BackendError, ContextLengthError, HydraError
from hydra_edge.llm import LLM
from hydra_edge.prompt import Prompt, build_prompt, cut, query_words
from hydra_edge.spelling import fold_label
from hydra_edge.tasks import TaskSpec
from hydra_edge.types import Completion, Record
from hydra_edge.utility import tokens

# A base built before packed files had two fingerprints states that of their packed bytes alone, and
# the shipped one is such: here is that of what its files hold, by the one it states.
UNPACKED = {
    "fa24990a47ac370f": "9411b598f8e7b2fb",  # commit_subject.train.jsonl.gz
    "7271eaa41ad0cbca": "fba28d5a8a0828c1",  # film_rating.train.jsonl.gz
    "ace2fafcef06b6e7": "5fbb32499a305638",  # movie_tag.train.jsonl.gz
    "9609b1e6aeefd8d3": "c1f532e5665d517b",  # news_category.train.jsonl.gz
    "85082f045029d80d": "877a01da07c021c6",  # news_headline.train.jsonl.gz
    "935f0ede3357bc8a": "d2e84b99fb534f02",  # paper_title.train.jsonl.gz
}
# An input may hold a word or two of its target by chance, hardly three in a row.
LEAST_WORDS = 3


class BenchError(HydraError):
    """A measurement cannot be made, or would not be honest."""

    code = "bench"
    http_status = 400


def _leak(user: UserHistory, position: int, what: str) -> BenchError:
    return BenchError(
        f"Leak at query {user.records[position].id} of user {user.user} ({user.task}): {what}. "
        "Expected only what was known before the query. The run is void; correct the data or "
        "the code that chose it."
    )


def _within(words: Sequence[str], text: str) -> bool:
    """Whether words stand in a text in a row."""
    among, n = tokens(text), len(words)
    return n > 0 and any(among[i : i + n] == list(words) for i in range(len(among) - n + 1))


def check_history(history: Iterable[Record], user: UserHistory, position: int) -> None:
    """Refuse a history that holds the query itself, a later record, or anything foreign.

    Parameters
    ----------
    history
        What a query is about to see.
    user, position
        The user's records, oldest first, and which of them is the query.

    Raises
    ------
    BenchError
        At the first record that was not there before the query.
    """
    place = {record.id: i for i, record in enumerate(user.records)}
    for record in history:
        found = place.get(record.id)
        if found is None:
            raise _leak(user, position, f"history holds {record.id}, no record of this user")
        if found == position:
            raise _leak(user, position, "history holds the query itself")
        if found > position:
            raise _leak(user, position, f"history holds the later record {record.id}")
        own = user.records[found]
        if (record.input, record.output) != (own.input, own.output):
            raise _leak(user, position, f"history holds {record.id} with other content")


def check_prompt(
    prompt: Prompt, user: UserHistory, position: int, declared: TaskSpec, about: str = ""
) -> None:
    """Refuse a prompt that tells the target otherwise than as a member of the closed set.

    Every part of a prompt must come from where it may come from: the query from the record's
    input, the examples from earlier records, the closed set from the task and earlier
    answers, and what stands before them from the user's profile. So the target can be in it
    only as a member of the closed set, or where an earlier record or the query says the same.

    Parameters
    ----------
    declared
        The task as it is without any user's answers.
    about
        The user's profile as put before a prompt, if this one is to hold it; what it was
        written from is checked where it is written.

    Raises
    ------
    BenchError
        At the first part that could tell the target.
    """
    record, past = user.records[position], user.records[:position]
    if prompt.query != cut(record.input, query_words(prompt.task)):
        raise _leak(user, position, "the prompt's query is not the record's input")
    earlier = {r.id: r for r in past}
    for shot in prompt.shots:
        if shot.record_id not in earlier:
            raise _leak(user, position, f"the prompt shows {shot.record_id}, no earlier record")
        own = build_prompt(prompt.task, "", [earlier[shot.record_id]]).shots[0]
        if shot != own:
            raise _leak(user, position, f"the prompt shows {shot.record_id} with other content")
    if replace(prompt.task, labels=()) != replace(declared, labels=()):
        raise _leak(user, position, "the prompt's task is not the one declared")
    answered = {fold_label(r.output) for r in past}
    known = set(map(fold_label, declared.labels)) | answered
    for label in prompt.task.labels:
        if fold_label(label) not in known:
            raise _leak(user, position, f"the closed set holds {label!r}, not answered before")
    if prompt.system != about:
        raise _leak(user, position, "the prompt begins with more than the user's profile")


class Watched:
    """An LLM that is measured: what it fails is remembered, what it must not see is refused.

    A device carries on when an LLM fails, with fewer pools or candidates; a measurement must not.

    Parameters
    ----------
    held_out
        Ids of the records that no prompt may show.
    as_device
        Whether answers outside a closed set are dropped, as in a device's fit. Else they stay, as
        the empty answers they are kept as: to a query they are wrong answers.
    """

    def __init__(
        self, inner: LLM, held_out: Iterable[str] = (), *, as_device: bool = False
    ) -> None:
        self.inner = inner
        self.as_device = as_device
        self.name = inner.name
        self.is_remote = inner.is_remote
        self.held_out = frozenset(held_out)
        self.failure: BackendError | None = None

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """See the protocol."""
        return self.inner.render(prompt, max_tokens=max_tokens, seed=seed)

    def complete(
        self,
        prompt: Prompt,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
        on_short: Callable[[Exception], None] | None = None,
        **options: Any,
    ) -> list[Completion]:
        """See the protocol; what is begun is finished, whatever ``should_stop`` says.

        ``on_short`` is not told anything: kept answers do not know why there are no more of them.

        Raises
        ------
        BenchError
            If the prompt shows a record that is a query of the measurement.
        BackendError
            If the LLM fails, or all of its answers are dropped.
        """
        if leaked := self.held_out.intersection(prompt.record_ids):
            raise BenchError(
                f"Leak in fitting: a prompt shows {sorted(leaked)[0]}, a query of the "
                "measurement. Expected the history before the queries. The run is void."
            )
        try:
            completions = self.inner.complete(prompt, **options)
        except ContextLengthError:
            raise  # the prompt is cut and asked again
        except BackendError as err:
            self.failure = self.failure or err
            raise
        if self.as_device and options.get("choices"):
            completions = [c for c in completions if c.text]
            if not completions:  # a device goes on without them: no failure of the measurement
                raise BackendError(f"{self.name} chose none of the allowed answers.")
        if on_candidate is not None:
            for completion in completions:
                on_candidate(completion)
        return completions

    def close(self) -> None:
        """Leave the inner LLM open: it is not ours."""


def target_in_input(record: Record, declared: TaskSpec) -> bool:
    """Whether a free text's target stands word for word in its own input, as some data has it.

    That is what a user would have typed, so it is counted and reported, not refused.
    """
    words = tokens(record.output)
    query = cut(record.input, query_words(declared))
    return declared.kind == "text" and len(words) >= LEAST_WORDS and _within(words, query)


def _trained_on(value: object) -> Iterator[tuple[str, str]]:
    """Find every ``trained_on`` within a manifest's free part: (file name, fingerprint)."""
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        if key == "trained_on" and isinstance(inner, Mapping):
            yield from ((str(name), str(mark)) for name, mark in inner.items())
        else:
            yield from _trained_on(inner)


def refuse_seen(files: Sequence[Path], seen: Mapping[str, str], what: str) -> None:
    """Refuse files that something was trained on, whatever they are called and however packed.

    A part of such a file, or its lines in another order, is not recognised.

    Parameters
    ----------
    seen
        Fingerprints (``export.data.fingerprint``) and the names the files had then.
    what
        Who was trained on them.

    Raises
    ------
    BenchError
        If a file's fingerprint is among them, or it cannot be read.
    """
    known = dict(seen) | {UNPACKED[mark]: name for mark, name in seen.items() if mark in UNPACKED}
    for path in files:
        try:
            marks = fingerprint([path]).values()
        except (OSError, EOFError, zlib.error) as err:
            raise BenchError(
                f"{path.name} cannot be read: {err}. Expected a whole file of users. Give it anew."
            ) from err
        if found := [known[mark] for mark in marks if mark in known]:
            raise BenchError(
                f"{path} cannot measure {what}: trained on it (as {found[0]}); expected users "
                "never seen. Give another file."
            )


def check_not_trained_on(bundle: Bundle, files: Sequence[Path]) -> None:
    """Refuse files that the base was trained on.

    Raises
    ------
    BenchError
        If there is one.
    """
    manifest = bundle.manifest
    seen = {mark: name for part in (manifest.quality, manifest.provenance)
            for name, mark in _trained_on(part)}  # fmt: skip
    refuse_seen(files, seen, f"base {bundle.base_id[:12]}")
