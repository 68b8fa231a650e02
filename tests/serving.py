"""A server of ours in a thread, and LLMs that wait until a test says go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from hydra_edge.config import Config, find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.server import run
from hydra_edge.server.guard import Guard
from hydra_edge.server.service import Settings
from hydra_edge.server.tokens import Doorkeeper, TokenFiles, owner_token
from hydra_edge.types import Completion, Record

CHAT = "/v1/chat/completions"
LONG_S = 60.0  # no test waits this long unless it fails


class EchoLLM:
    """An LLM whose answers carry the query's last word; counts what it was asked."""

    name = "echo"
    is_remote = False

    def __init__(self) -> None:
        self.asked: list[Prompt] = []
        self.closed = 0

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        return prompt.completion_text()

    def answers(self, prompt: Prompt, n: int) -> list[Completion]:
        word = prompt.query.split()[-1]
        return [
            Completion(f"answer {i} to {word}", greedy=i == 0, tokens=4, logprob=-1.0 - i / 10)
            for i in range(n)
        ]

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
        self.asked.append(prompt)
        made = self.answers(prompt, n)
        for completion in made:
            if on_candidate is not None:
                on_candidate(completion)
        return made

    def close(self) -> None:
        self.closed += 1


class GatedLLM(EchoLLM):
    """An echo that finishes ``first`` candidates, then waits for the gate or the word to stop."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)  # one release an answer begun
        self.stopped = threading.Semaphore(0)  # one release an answer told to stop

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        should_stop: Callable[[], bool] | None = None,
        **options: Any,
    ) -> list[Completion]:
        self.started.release()
        while not self.gate.wait(0.002):  # a decode step
            if should_stop is not None and should_stop():
                self.stopped.release()
                return self.answers(prompt, n)[: self.first]
        return super().complete(prompt, n=n, **options)


@dataclass
class Served:
    """A running server and what it takes to talk to it."""

    server: run.Server
    url: str
    token: str
    files: TokenFiles
    thread: threading.Thread

    @property
    def app(self) -> Guard:
        return self.server.app

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, token: str | None = None, **headers: str) -> httpx2.Client:
        auth = {"Authorization": f"Bearer {token or self.token}"}
        return httpx2.Client(base_url=self.url, headers=auth | headers, timeout=LONG_S)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(LONG_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(person: Personalizer, **options: Any) -> Iterator[Served]:
    """Serve a person on a free port for as long as the context lasts."""
    files = TokenFiles.of(find_paths())
    token = owner_token(files)
    with run.bind(0) as sock:
        port = sock.getsockname()[1]
        settings = Settings(port=port, doorkeeper=Doorkeeper(files), **options)
        ready = threading.Event()
        made: list[run.Server] = []

        def started(server: run.Server) -> None:
            made.append(server)
            ready.set()

        thread = threading.Thread(
            target=run.serve, args=(person, settings, sock), kwargs={"ready": started}
        )
        thread.start()
        assert ready.wait(LONG_S)
        served = Served(made[0], f"http://127.0.0.1:{port}", token, files, thread)
        try:
            yield served
        finally:
            served.stop()


def serving_echo(hash_encoder) -> Iterator[Served]:
    """Serve one who has records of one task; ``yield from`` it."""
    me = Personalizer.from_records(
        history(), llm=EchoLLM(), encoder=hash_encoder, config=Config(task="paper_title")
    )
    with me, serving(me) as it:
        yield it


def history(n: int = 12, task: str = "paper_title") -> list[Record]:
    """Make records of one task."""
    return [
        Record(f"a long text about parsers number {i}", f"Parser: study {i}", task, f"r{i}", i)
        for i in range(n)
    ]


def chat(query: str, model: str = "hydra-edge", **more: Any) -> dict[str, Any]:
    """Make a chat request's body."""
    return {"model": model, "messages": [{"role": "user", "content": query}]} | more


def ask(served: Served, query: str, **more: Any) -> httpx2.Response:
    """Send a chat request as the server's owner."""
    with served.client() as client:
        return client.post(CHAT, json=chat(query, **more))


def people(hash_encoder) -> Iterator[Callable[..., Personalizer]]:
    """Give what makes people with records of one task, and close them: ``yield from`` it."""
    made: list[Personalizer] = []

    def make(
        llm: EchoLLM | None = None, records: Sequence[Record] | None = None, **config: Any
    ) -> Personalizer:
        me = Personalizer.from_records(
            history() if records is None else records,
            llm=llm or EchoLLM(),
            encoder=hash_encoder,
            config=Config(**{"task": "paper_title"} | config),
        )
        made.append(me)
        return me

    yield make
    for me in made:
        me.close()
