"""A queue with bounds: who is served, who waits, and who is sent away at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from hydra_edge.server.refusal import Refusal


class Lane:
    """Serves one request at a time in the order of arrival; ``waiting`` of them may wait."""

    def __init__(self, waiting: int) -> None:
        self.limit = waiting
        self.waiting = 0
        self.served = 0
        self._turn = asyncio.Lock()  # first come, first served

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
