"""Running an ``AsyncPersonalizer`` on an event loop of its own, from an ordinary test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from serving import LONG_S, EchoLLM, history

from hydra_edge import AsyncPersonalizer
from hydra_edge.config import Config
from hydra_edge.types import Record

TASK = "paper_title"

Open = Callable[[EchoLLM], AsyncPersonalizer]
Encode = Callable[..., Any]


def opening(hash_encoder) -> Open:
    """Return what opens one in memory with this LLM."""

    def one(llm: EchoLLM) -> AsyncPersonalizer:
        return AsyncPersonalizer.from_records(
            history(), llm=llm, encoder=hash_encoder, config=Config()
        )

    return one


def run(work: Awaitable[Any]) -> Any:
    """Run a coroutine; a test that would wait for ever fails instead."""
    return asyncio.run(asyncio.wait_for(work, LONG_S))


async def acquired(semaphore: threading.Semaphore) -> None:
    """Wait for another thread without blocking the loop."""
    assert await asyncio.to_thread(semaphore.acquire, timeout=LONG_S)


def gated(encode: Encode) -> tuple[Encode, threading.Semaphore, threading.Event]:
    """Make an encoding that waits for a gate; give it, what is released as it begins, the gate."""
    begun, gate = threading.Semaphore(0), threading.Event()

    def slowly(texts, **options):
        begun.release()
        assert gate.wait(LONG_S)
        return encode(texts, **options)

    return slowly, begun, gate


def some_records(n: int, before: Callable[[int], None]) -> Iterator[Record]:
    """Give records, and call ``before`` with the number of each, and with ``n`` at the end."""
    for i in range(n):
        before(i)
        yield Record(f"more {i}", f"Parser: more {i}", TASK, id=f"m{i}")
    before(n)
