"""An LLM that never answers the same prompt twice: answers are kept in compact JSONL.

A line holds the prompt's hash and the answers, never the prompt: no source text is stored.
Given no inner LLM, only what was answered before can be had, so that training and measuring
can be replayed on a machine without any model.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from export.lines import write_packed
from hydra_edge.config import load_config
from hydra_edge.errors import BackendError, ConfigError, ContextLengthError, HydraError
from hydra_edge.llm import LLM
from hydra_edge.llm.members import find_member
from hydra_edge.llm.models import open_llm
from hydra_edge.llm.openai_api import OpenAIApi
from hydra_edge.paths import find_paths
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, JsonDict, text_hash

# Models whose own name is not what they are opened by; a cache's ``.name`` file wins over it.
_OWN_NAMES = {"smollm2": "smollm2-q8"}

LARGER = 8  # how many answers more a kept pool may hold than are asked for


def answers_file(folder: Path, spec: str) -> Path:
    """Return where the answers of an LLM are kept; ``spec`` is as for ``open_llm``."""
    slug = re.sub(r"[^A-Za-z0-9.@-]+", "_", spec).strip("._") or "default"
    return folder / f"{slug}.jsonl"


def open_cached(spec: str, path: Path, *, replay: bool, threads: int = 0) -> CachedLLM:
    """Open an LLM behind the cache of its answers; to replay, the cache alone.

    Answers are filed under the model's own name, which is kept beside them (``<stem>.name``): a
    replay has no model to ask for it.
    """
    named = path.with_suffix(".name")
    if replay:
        own = named.read_text(encoding="utf-8").strip() if named.exists() else ""
        return CachedLLM(None, path, name=own or _OWN_NAMES.get(spec, spec))
    paths = find_paths()
    config = load_config(paths)
    model = CachedLLM(open_llm(spec, replace(config, threads=threads), paths), path)
    if named.exists() and (of := named.read_text(encoding="utf-8").strip()) != model.name:
        raise ConfigError(
            f"{path} keeps the answers of {of}; got {model.name}. Give another file, or remove "
            "it and its .name."
        )
    if model.name != spec:
        named.parent.mkdir(parents=True, exist_ok=True)
        named.write_text(model.name + "\n", encoding="utf-8")
    return model


def _packed(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".gz")


def _unpacked(path: Path) -> str:
    """Return what a ``.gz`` of answers holds.

    Raises
    ------
    HydraError
        If it cannot be unpacked: cut short, say, while it was fetched.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            return stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as err:
        raise HydraError(
            f"{path} cannot be unpacked: {err}. Expected a whole file of kept answers. Fetch it "
            "anew; without it all of its answers are asked again."
        ) from err


def _line(row: JsonDict) -> str:
    """Write a row; what is no text, half of an emoji, say, as JSON's escapes."""
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(row, separators=(",", ":"))
    return line


def _rows(text: str) -> dict[str, str]:
    """Read the whole lines of a cache by key; the last one of a key counts."""
    rows: dict[str, str] = {}
    for line in text.split("\n"):  # an answer may hold what else ends lines
        try:
            rows[json.loads(line)["k"]] = line
        except (ValueError, KeyError, TypeError):
            continue  # cut off when its writer was stopped: asked again
    return rows


def answer_rows(path: Path) -> dict[str, str]:
    """Return all that is kept in a cache, packed or not: key -> line, sorted by key."""
    rows: dict[str, str] = {}
    if _packed(path).exists():
        rows |= _rows(_unpacked(_packed(path)))
    if path.exists():
        rows |= _rows(path.read_text(encoding="utf-8", errors="replace"))
    return dict(sorted(rows.items()))


def pack_answers(path: Path) -> int:
    """Move a cache that has grown into its ``.gz``; equal answers give equal bytes.

    Nobody should be answering meanwhile. What was appended while this ran is packed as well.

    Returns
    -------
    int
        How many answers are packed now.
    """
    while True:
        size = path.stat().st_size if path.exists() else 0
        rows = answer_rows(path)
        write_packed(_packed(path), rows.values())
        if not path.exists():
            return len(rows)
        if path.stat().st_size == size:
            path.unlink()
            return len(rows)


def _asked(
    llm: LLM, prompt: Prompt, *, choices: Sequence[str] | None, **options: Any
) -> list[Completion]:
    """Ask an LLM; an answer outside the closed set, which an API can give, is an empty one.

    A device drops such an answer. Dropped here, an LLM would be measured by the others alone.
    """
    if not choices or not isinstance(llm, OpenAIApi):
        return llm.complete(prompt, choices=choices, **options)
    said = llm.complete(prompt, **options)
    return [replace(answer, text=find_member(answer.text, choices) or "") for answer in said]


@dataclass(slots=True)
class Spent:
    """What answers that were not kept have cost, as far as the LLM tells.

    A remote API is sent a prompt in several ``requests``: one for the greedy answer, one more for
    all the others or one for each. ``seconds`` are those that were waited for it.
    """

    prompts: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0


class CachedLLM:
    """Answers from a file first, from the inner LLM second (and then into the file).

    Of answers from a closed set those that name no member are empty, and kept as such.

    Parameters
    ----------
    inner
        The model to ask for what is missing; None to replay only.
    path
        A ``.jsonl`` file that grows, and beside it optionally ``<path>.gz``, read first.
    name
        The model's name, needed only where ``inner`` is None.
    """

    def __init__(self, inner: LLM | None, path: Path, *, name: str = "") -> None:
        self.inner = inner
        self.path = path
        self.name = inner.name if inner is not None else name
        self.asked = 0
        self.spent = Spent()
        self.answers: dict[str, list[Completion]] = {}
        self.too_long: set[str] = set()  # prompts that did not fit: a replay must cut them too
        packed = _packed(path)
        if packed.exists():
            self._read(_unpacked(packed))
        self._broken = False  # the file ends within a line: its writer was stopped
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self._broken = bool(text) and not text.endswith("\n")
            self._read(text)

    def _read(self, text: str) -> None:
        for line in _rows(text).values():
            self._learn(json.loads(line))

    def _learn(self, row: JsonDict) -> None:
        if "x" in row:
            self.too_long.add(row["k"])
            return
        self.answers[row["k"]] = [
            Completion(c[0], greedy=i == 0 and row["g"], tokens=c[1], logprob=c[2])
            for i, c in enumerate(row["c"])
        ]

    @property
    def is_remote(self) -> bool:
        """Whether a prompt leaves this machine; none does where nobody is asked."""
        return self.inner is not None and self.inner.is_remote

    def replay(self) -> CachedLLM:
        """Return the same answers without the model: what is missing is never asked for."""
        twin = copy.copy(self)
        twin.inner = None
        return twin

    def key(
        self, prompt: Prompt, n: int, temperature: float, max_tokens: int, seed: int, closed: bool
    ) -> str:
        """Name a request; everything that changes the answers changes it."""
        parts = (self.name, prompt.key(), n, f"{temperature:g}", max_tokens, seed, closed)
        return text_hash("\x1f".join(map(str, parts)))[:24]

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """See the protocol."""
        if self.inner is None:
            return prompt.completion_text()
        return self.inner.render(prompt, max_tokens=max_tokens, seed=seed)

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
        """See the protocol; an answer known is returned at once, one begun is finished.

        ``should_stop`` is not heeded: a pool that was cut short would be another answer.
        """
        completions = self._completed(
            prompt, n, temperature, max_tokens, choices, seed, on_token=on_token
        )
        if on_candidate is not None:
            for completion in completions:
                on_candidate(completion)
        return completions

    def _completed(
        self,
        prompt: Prompt,
        n: int,
        temperature: float,
        max_tokens: int,
        choices: Sequence[str] | None,
        seed: int,
        *,
        on_token: Callable[[str], None] | None,
    ) -> list[Completion]:
        key, *larger = (
            self.key(prompt, m, temperature, max_tokens, seed, bool(choices))
            for m in range(n, n + 1 + LARGER)
        )
        if not self.too_long.isdisjoint((key, *larger)):
            raise ContextLengthError(f"{self.name} was found not to have room for this prompt.")
        if key not in self.answers:
            # Answers are drawn one by one from seeds of their own: a larger pool begins with these.
            for other in larger:
                if other in self.answers:
                    return self.answers[other][:n]
            if self.inner is None:
                raise BackendError(
                    f"No answer of {self.name} to this prompt in {self.path}. Expected it to be "
                    "cached; run once with the model itself."
                )
            started = time.monotonic()
            try:
                completions = _asked(
                    self.inner, prompt, n=n, temperature=temperature, max_tokens=max_tokens,
                    choices=choices, seed=seed, on_token=on_token,
                )  # fmt: skip
            except ContextLengthError:
                self._append({"k": key, "x": True})
                raise
            finally:
                self._count(self.inner, time.monotonic() - started)
            self.asked += 1
            self.spent.prompts += 1
            self.spent.prompt_tokens += sum(c.prompt_tokens for c in completions)
            self.spent.answer_tokens += sum(c.tokens for c in completions)
            self._append(self._row(key, completions))
        return self.answers[key]

    def _count(self, inner: LLM, seconds: float) -> None:
        """Note that an LLM was asked, with whatever outcome; what is no API is asked at once."""
        self.spent.seconds += seconds
        if isinstance(inner, OpenAIApi):
            self.spent.requests = inner.requests
        else:
            self.spent.requests += 1

    @staticmethod
    def _row(key: str, completions: Sequence[Completion]) -> JsonDict:
        return {
            "k": key,
            "g": bool(completions and completions[0].greedy),
            "c": [
                [c.text, c.tokens, None if c.logprob is None else round(c.logprob, 4)]
                for c in completions
            ],
        }

    def _append(self, row: JsonDict) -> None:
        """Write a row, and take it as it will be read: a replay sees the very same answers."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            line = _line(row) + "\n"
            stream.write("\n" + line if self._broken else line)
            self._broken = False
            stream.flush()
            os.fsync(stream.fileno())
        self._learn(row)

    def close(self) -> None:
        """Close the inner LLM."""
        if self.inner is not None:
            self.inner.close()
