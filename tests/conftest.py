"""Fixtures every test shares: a home of its own, no network, hand-written fakes."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from hydra_edge.errors import BackendError
from hydra_edge.llm import recode
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Float2d, Progress
from hydra_edge.utility import tokens
from hydra_edge.variables import ENV_PREFIX

if TYPE_CHECKING:
    from hydra_edge.bundle import Bundle

# No key of the machine's keyring reaches a test, and none of a test reaches it. Said before any
# test can look for one: a keyring library chooses its keyring once, and among all the classes it
# knows, those that other tests define included.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# Variables that are no settings: they say which tests to run, and how.
_OF_THE_TESTS = (
    "HYDRA_EDGE_REQUIRE_BROWSER", "HYDRA_EDGE_SCREENSHOT", "HYDRA_EDGE_TRAINING_DATA",
)  # fmt: skip

# No deadlines: a loaded machine is no failure. No wall clock decides a test.
hypothesis.settings.register_profile(
    "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a home of its own, and no setting, key, proxy or width of the machine's."""
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX) and not name.startswith(_OF_THE_TESTS):
            monkeypatch.delenv(name)
    for name in ("OPENAI_API_KEY", "COLUMNS", *_PROXIES, *map(str.lower, _PROXIES)):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("HYDRA_EDGE_HOME", str(path))
    return path


@pytest.fixture(scope="session")
def _recoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundled LLM's faster copy is made once, not 145 MB for every test's home."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _one_copy_of_the_llm(_recoded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = recode.recode_q8
    monkeypatch.setattr(recode, "recode_q8", lambda source, _folder: make(source, _recoded))


@pytest.fixture(autouse=True)
def _one_prompt_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw whole pools from one prompt, whatever the shipped base has learned to be best.

    What a scripted LLM is asked then depends on the test alone; tests of pools that are drawn
    in part without records replace this fixture by one that does nothing.
    """
    monkeypatch.setattr("hydra_edge.engine.zero_shot_share", lambda _bundle, _task: 0.0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but those to this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and host not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@functools.cache
def _word_vector(word: str, dim: int) -> np.ndarray:
    seed = int.from_bytes(word.encode("utf-8", "surrogatepass"), "big") % (2**32)
    return np.random.default_rng(seed).standard_normal(dim).astype(np.float32)


class HashEncoder:
    """An encoder whose vectors are sums of hashed words: like texts are near, and it is fast."""

    def __init__(self, base_id: str = "hash-base", dim: int = 384) -> None:
        self.base_id = base_id
        self.dim = dim
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], *, progress: Progress | None = None) -> Float2d:
        self.encoded += list(texts)
        out = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in tokens(text) or [""]:
                out[row] += _word_vector(word, self.dim)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


class ScriptedLLM:
    """An LLM that answers by a function of the prompt, and remembers what it was asked."""

    name = "scripted"

    def __init__(
        self, answer: Callable[[Prompt, int], list[str]], *, is_remote: bool = False
    ) -> None:
        self.answer = answer
        self.is_remote = is_remote
        self.prompts: list[Prompt] = []
        self.closed = 0
        self.fail_next = 0
        self.finish = "stop"

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

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
    ) -> list[Completion]:
        if self.fail_next:
            self.fail_next -= 1
            raise BackendError("scripted failure")
        self.prompts.append(prompt)
        texts = self.answer(prompt, n)[:n]
        if on_token is not None and n == 1:
            on_token(texts[0])
        return [
            Completion(
                t, greedy=i == 0, tokens=len(t.split()), logprob=-1 / (3 + i), finish=self.finish
            )
            for i, t in enumerate(texts)
        ]

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The base shipped with the package."""
    from hydra_edge.bundle import load_bundle

    return load_bundle()


@pytest.fixture
def hash_encoder(bundle: Bundle) -> HashEncoder:
    """A fake encoder that passes for the shipped base."""
    return HashEncoder(bundle.base_id)


@pytest.fixture
def scripted() -> Callable[..., ScriptedLLM]:
    """Make a scripted LLM."""
    return ScriptedLLM
