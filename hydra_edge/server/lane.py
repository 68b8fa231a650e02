"""A queue with bounds: who is served, who waits, and who is sent away at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

from hydra_edge.server.refusal import Refusal
from hydra_edge.turns import awaitable

T = TypeVar("T")


class Lane:
    """Serves one request at a time in the order of arrival; ``waiting`` of them may wait."""

    def __init__(self, waiting: int) -> None:
        self.limit = waiting
        self.waiting = 0
        self.served = 0
        self._turn = asyncio.Lock()  # first come, first served
        # Of its own: work nobody waits for any more must take no thread from another lane.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hydra-edge-lane")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn and hold it; cancelling the task while it waits leaves the queue.

        Raises
        ------
        Refusal
            If too many wait already.
        """
        if self._turn.locked() and self.waiting >= self.limit:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS, "queue_full",
                f"The queue is full: got one more than {self.limit} waiting; expected a free "
                "place. Ask again in a moment.",
            )  # fmt: skip
        self.waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self.waiting -= 1
        try:
            yield
            self.served += 1
        finally:
            self._turn.release()

    async def do(self, work: Callable[[], T]) -> T:
        """Do something on the lane's thread, by whoever holds the turn.

        Once begun it goes on to its end, also where the task that awaits it is cancelled.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, awaitable(work))
