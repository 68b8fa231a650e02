"""A chat answer streamed while it is made.

Until the LLM begins to be asked nothing is sent, so that a request that cannot be served has its
status. From then on the response is a stream, and a failure is its last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hydra_edge.server.chat import ChatAnswer, ChatRequest
from hydra_edge.server.events import ChatEvents
from hydra_edge.server.guard import as_known
from hydra_edge.server.service import Service
from hydra_edge.types import Completion, Generation


class Live:
    """One answer on its way to one client.

    Parameters
    ----------
    service
        What makes it.
    asked
        What was asked for.
    wanted
        How many candidates there will be; a single one is streamed as it is written.
    """

    def __init__(self, service: Service, asked: ChatRequest, wanted: int) -> None:
        self._service = service
        self._asked = asked
        self._wanted = wanted
        self._drawn = 0
        self._form: ChatEvents | None = None  # once the LLM is being asked
        self._begun = asyncio.Event()
        self._events: asyncio.Queue[str | None] = asyncio.Queue()

    @property
    def listeners(self) -> dict[str, Any]:
        """What ``generate`` is to tell, and whom."""
        told = {"on_start": self._start, "on_candidate": self._candidate}
        return told | ({"on_token": self._piece} if self._wanted == 1 else {})

    async def response(
        self, request: Request, work: Coroutine[Any, Any, Generation]
    ) -> StreamingResponse:
        """Return the response once it has begun; ``work`` makes the answer and tells of it.

        Raises
        ------
        Exception
            Whatever ``work`` raised before the LLM was asked.
        """
        task = asyncio.ensure_future(self._make(work))
        try:
            await self._service.while_connected(request, self._first(task))
        except BaseException:
            await _end(task)
            raise
        return _Events(self._service, request, task, self._events)

    async def _first(self, task: asyncio.Task[None]) -> None:
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
            if self._form is None:
                task.result()
        finally:
            begun.cancel()

    async def _make(self, work: Coroutine[Any, Any, Generation]) -> None:
        """Make the answer, and put what there is to send of it in order."""
        try:
            async with asyncio.timeout(self._service.patience_s) as limit:
                generation = await work
        except Exception as error:
            if self._form is None:
                raise
            known = self._service.too_late() if limit.expired() else as_known(error)
            self._send(self._form.failed(known))
        else:
            if self._form is not None:
                for event in self._form.end(ChatAnswer(self._asked, generation)):
                    self._send(event)
        finally:
            self._events.put_nowait(None)

    def _send(self, event: str) -> None:
        if event:
            self._events.put_nowait(event)

    # ---- what generate tells

    def _start(self, generation_id: str) -> None:
        base_id = self._service.owner.bundle.base_id
        self._form = ChatEvents(self._asked, generation_id, base_id)
        self._send(self._form.begin())
        self._begun.set()

    def _piece(self, text: str) -> None:
        if self._form is not None:
            self._send(self._form.piece(text))

    def _candidate(self, _completion: Completion) -> None:
        self._drawn += 1
        if self._form is not None and self._wanted > 1:
            self._send(self._form.progress(self._drawn, self._wanted))


class _Events(StreamingResponse):
    """Sends events until there are no more; a client that hangs up has the work cancelled."""

    def __init__(
        self,
        service: Service,
        request: Request,
        work: asyncio.Task[None],
        events: asyncio.Queue[str | None],
    ) -> None:
        super().__init__(_each(events), media_type="text/event-stream")
        self._service = service
        self._request = request
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._service.while_connected(self._request, self.stream_response(send))
        finally:
            await _end(self._work)


async def _each(events: asyncio.Queue[str | None]) -> AsyncIterator[str]:
    while (event := await events.get()) is not None:
        yield event


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
