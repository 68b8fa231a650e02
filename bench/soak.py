"""Many clients at one server for a while: no answer may be lost, nor given to another.

``python -m bench.soak`` starts a server in this process and its clients in another: a history in
memory, the shipped base, and an LLM that answers at once (a real one with ``--model``). Every query
carries a word only it has, and every answer must carry the same; what the server counted must
be what the clients got.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import httpx2
import numpy as np
import typer
from rich.console import Console

from bench.clock import cores
from bench.command import given, head, new_app, start, write
from bench.report import need
from hydra_edge.bundle import load_bundle
from hydra_edge.config import load_config
from hydra_edge.llm import LLM, open_llm
from hydra_edge.paths import find_paths
from hydra_edge.personalizer import Personalizer
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, JsonDict, Record

_TASK = "note_title"
_PATIENCE_S = 120.0

app = new_app()


class EchoLLM:
    """Stands in for an LLM: its answers carry the query's last word, at once."""

    name = "echo"
    is_remote = False

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """Return the prompt."""
        return prompt.completion_text()

    def complete(self, prompt: Prompt, *, n: int = 1, **options: Any) -> list[Completion]:
        """Answer ``n`` times."""
        word = prompt.query.split()[-1]
        return [
            Completion(f"title {i} of {word}", greedy=i == 0, tokens=4, logprob=-1.0)
            for i in range(n)
        ]

    def close(self) -> None:
        """Do nothing."""


class TaggedLLM:
    """A real LLM whose every answer has the query's last word put behind it."""

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self.name = llm.name
        self.is_remote = llm.is_remote

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """Return what the real one would be sent."""
        return self._llm.render(prompt, max_tokens=max_tokens, seed=seed)

    def complete(
        self, prompt: Prompt, *, should_stop: Callable[[], bool] | None = None, **options: Any
    ) -> list[Completion]:
        """Let the real one answer, and tag each answer."""
        options["should_stop"] = should_stop
        word = prompt.query.split()[-1]
        return [replace(c, text=f"{c.text} {word}") for c in self._llm.complete(prompt, **options)]

    def close(self) -> None:
        """Close the real one."""
        self._llm.close()


@dataclass
class Tally:
    """What one client saw."""

    latencies_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    crossed: int = 0
    lost: int = 0  # no answer at all, or one that breaks off


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server: by how many clients, for how long."""

    url: str
    token: str
    clients: int
    seconds: float
    candidates: int


def ask(load: Load) -> list[Tally]:
    """Be all the clients at once, in one process."""
    return asyncio.run(_ask(load))


async def _ask(load: Load) -> list[Tally]:
    end = time.monotonic() + load.seconds
    return await asyncio.gather(*(_client(load, number, end) for number in range(load.clients)))


async def _client(load: Load, number: int, end: float) -> Tally:
    tally = Tally()
    headers = {"Authorization": f"Bearer {load.token}"}
    async with httpx2.AsyncClient(
        base_url=load.url, headers=headers, timeout=_PATIENCE_S
    ) as client:
        asked = 0
        while time.monotonic() < end:
            asked += 1
            word = f"w{number}x{asked}"
            body = {
                "model": "hydra-edge",
                "messages": [{"role": "user", "content": f"a note about parsers, {word}"}],
                "hydra_edge": {"candidates": load.candidates},
                "stream": asked % 4 == 0,
            }
            started = time.monotonic()
            try:
                response = await client.post("/v1/chat/completions", json=body)
            except httpx2.HTTPError:
                tally.lost += 1
                continue
            tally.statuses[response.status_code] += 1
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                await asyncio.sleep(float(response.headers["Retry-After"]))
                continue
            tally.latencies_ms.append((time.monotonic() - started) * 1000.0)
            _check(response, word, tally, stream=bool(body["stream"]))
    return tally


def _check(response: httpx2.Response, word: str, tally: Tally, *, stream: bool) -> None:
    if response.status_code != 200:
        return
    try:
        if stream:
            # All but comments, which say how far it is.
            lines = [e for e in response.text.split("\n\n") if e and not e.startswith(":")]
            events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
            text = "".join(
                c["delta"].get("content", "") for event in events for c in event["choices"]
            )
            whole = lines[-1] == "data: [DONE]"
        else:
            text, whole = response.json()["choices"][0]["message"]["content"], True
    except (ValueError, LookupError):
        text, whole = "", False
    if not whole:
        tally.lost += 1
    elif not text.endswith(f" {word}"):
        tally.crossed += 1


def _rss_mb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def soak(
    seconds: float, clients: int, *, llm: LLM, candidates: int, queue: int, records: int
) -> JsonDict:
    """Let clients ask for so many seconds, and count what came of it."""
    from hydra_edge.server import run
    from hydra_edge.server.service import Settings
    from hydra_edge.server.tokens import Doorkeeper, TokenFiles, new_token

    history = [
        Record(f"a note about parsers, number {i}", f"Parsers {i}", _TASK, f"r{i}", float(i))
        for i in range(records)
    ]
    token = new_token()
    with (
        tempfile.TemporaryDirectory() as folder,
        Personalizer.from_records(history, llm=llm) as person,
        run.bind(0) as sock,
    ):
        files = TokenFiles(Path(folder) / "token", Path(folder) / "apps.json")
        port = sock.getsockname()[1]
        settings = Settings(port, Doorkeeper(files, [token]), _TASK, queue)
        made: list[run.Server] = []
        ready = threading.Event()

        def started(server: run.Server) -> None:
            made.append(server)
            ready.set()

        thread = threading.Thread(
            target=run.serve, args=(person, settings, sock), kwargs={"ready": started}
        )
        thread.start()
        ready.wait()
        load = Load(f"http://127.0.0.1:{port}", token, clients, seconds, candidates)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as others:
            # Everything is loaded then, on both sides.
            others.submit(ask, replace(load, clients=1, seconds=2.0)).result()
            server = made[0]
            before, served = _rss_mb(), server.app.service.llm.served
            begun = time.monotonic()
            tallies = others.submit(ask, load).result()
            took = time.monotonic() - begun
        after, served = _rss_mb(), server.app.service.llm.served - served
        left = server.app.running
        server.stop()
        thread.join()
    return _summary(tallies, took) | {
        "served_by_the_llm": served,
        "left_running": left,
        "rss_mb": {"before": round(before, 1), "after": round(after, 1)},
    }


def _summary(tallies: Sequence[Tally], took: float) -> JsonDict:
    latencies = np.array([ms for tally in tallies for ms in tally.latencies_ms])
    statuses: Counter[int] = sum((tally.statuses for tally in tallies), Counter())
    points = (50, 95, 99)
    p50, p95, p99 = (float(np.percentile(latencies, p)) if len(latencies) else 0.0 for p in points)
    return {
        "seconds": round(took, 2),
        "clients": len(tallies),
        "requests": sum(statuses.values()) + sum(tally.lost for tally in tallies),
        "answered": statuses[200],
        "sent_away": statuses[429],
        "failed": sum(n for status, n in statuses.items() if status not in (200, 429)),
        "lost": sum(tally.lost for tally in tallies),
        "crossed": sum(tally.crossed for tally in tallies),
        "answers_per_s": round(statuses[200] / took, 1),
        "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
    }


@app.command()
def main(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(help="How long the clients ask.")] = 60.0,
    clients: Annotated[int, typer.Option(help="How many ask at once.")] = 50,
    queue: Annotated[int, typer.Option(help="Requests that may wait.")] = 64,
    candidates: Annotated[int, typer.Option(help="Answers sampled for a request.")] = 8,
    records: Annotated[int, typer.Option(help="Records of the history.")] = 200,
    model: Annotated[str, typer.Option(help="A real LLM; default: one that echoes.")] = "",
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json",
            "--out",
            dir_okay=False,
            writable=True,
            help="Write the figures here; default: in bench/results/runs.",
        ),
    ] = None,
) -> None:
    """Measure what many clients at once get from the server."""
    need("psutil")
    load = round(os.getloadavg()[0], 2)
    made = head("soak", given(context), load_bundle().base_id)
    paths = find_paths()
    llm: LLM = TaggedLLM(open_llm(model, load_config(paths), paths)) if model else EchoLLM()
    try:
        figures = soak(
            seconds, clients, llm=llm, candidates=candidates, queue=queue, records=records
        )
    finally:
        llm.close()
    result = made | {
        "cores": cores(),
        "load_before": load,
        "python": platform.python_version(),
        "model": llm.name,
        "records": records,
        "candidates": candidates,
        "queue": queue,
    }
    result |= figures
    for name, value in result.items():
        print(f"{name:18} {value}")
    write(result, json_path, "soak", Console())
    lost = result["lost"] or result["crossed"] or result["failed"] or result["left_running"]
    raise typer.Exit(1 if lost or result["answered"] != result["served_by_the_llm"] else 0)


if __name__ == "__main__":
    start(app)
