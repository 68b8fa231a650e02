"""What the routes share: the person served, the queues before them, and who may see what."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast

from hydra_edge.aio import heard
from hydra_edge.errors import CancelledError
from hydra_edge.server.lane import Lane
from hydra_edge.server.refusal import Refusal
from hydra_edge.tasks import canonical_name
from hydra_edge.turns import StopSignal

if TYPE_CHECKING:
    from starlette.requests import Request

    from hydra_edge.aio import AsyncPersonalizer
    from hydra_edge.personalizer import Personalizer
    from hydra_edge.server.tokens import Doorkeeper, Scope

T = TypeVar("T")

DEFAULT_PORT = 4937
# What waits for no LLM takes milliseconds, so that a client seldom has to come back; bounded, since
# each of those waiting may hold a body of 1 MiB.
QUICK_WAITING = 64
_GRACE_S = 10.0  # for an LLM told to stop to hand over what is finished
# What comes of a choice whose client is told that the time is over.
_STILL_IN_LINE = "The choice is kept as soon as its turn comes; the next fit learns from it."


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server serves.

    ``task`` is the one of the model named plain ``hydra-edge``; ``queue`` is how many may wait for
    the LLM.
    """

    port: int
    doorkeeper: Doorkeeper
    task: str | None = None
    queue: int = 64
    timeout_s: float = 300.0


class Service:
    """One person's personalizer behind queues: for the LLM, for the engine, and for the file.

    Who asks for the engine waits while a fit has it, or while records are embedded; who only
    reads or writes the file never waits for that.
    """

    def __init__(self, person: AsyncPersonalizer, settings: Settings) -> None:
        self.person = person
        self.settings = settings
        self.started = int(time.time())
        self.llm = Lane(settings.queue)
        self.engine = Lane(QUICK_WAITING)
        self.quick = Lane(QUICK_WAITING)
        self._choices: set[asyncio.Task[Any]] = set()  # asyncio holds none itself

    @property
    def is_learning(self) -> bool:
        """Whether a choice is in line still, be it that nobody waits for it any more."""
        return bool(self._choices)

    @property
    def patience_s(self) -> float:
        """Longest wait for an answer, handing over what is finished included."""
        return self.settings.timeout_s + _GRACE_S

    @property
    def owner(self) -> Personalizer:
        """The personalizer itself, for reading its store; never for long work."""
        return self.person.personalizer

    def context(self) -> int | None:
        """Return the LLM's context in tokens, None if it does not say; it is opened for that."""
        size: int | None = getattr(self.owner.llm, "n_ctx", None)
        return size

    @asynccontextmanager
    async def answering(self, lane: Lane | None = None) -> AsyncIterator[Callable[[], bool]]:
        """Wait for one's turn and hold it; gives what tells once the time allowed is over.

        The turn is the LLM's, unless another ``lane`` is named.

        Raises
        ------
        Refusal
            If too many wait already, or no answer was finished within the time.
        """
        end = time.monotonic() + self.settings.timeout_s

        def is_over() -> bool:
            return time.monotonic() > end

        async with (lane or self.llm).turn():
            try:
                yield is_over
            except CancelledError as err:
                if is_over():
                    raise self.too_late(str(err)) from err
                raise

    async def quickly(self, work: Callable[[Personalizer], T], lane: Lane | None = None) -> T:
        """Do something quick with the personalizer on a thread, in turn.

        It reads or writes the file, and no more, unless another ``lane`` is named.
        """
        lane = lane or self.quick
        async with lane.turn():
            return await lane.do(partial(work, self.owner))

    async def stoppably(
        self,
        work: Callable[[Personalizer, Callable[[], bool]], T],
        lane: Lane,
        left: threading.Event | None = None,
    ) -> T:
        """Do something that may take long with the personalizer on a thread, in turn.

        It is given what says when to stop: the time is over, nobody waits for it any more, or
        ``left`` is set.

        Raises
        ------
        Refusal
            If too many wait already, or it was stopped because the time is over.
        """
        left = left or threading.Event()
        async with self.answering(lane) as is_over:
            try:
                return await lane.do(partial(work, self.owner, StopSignal(left.is_set, is_over)))
            finally:
                left.set()

    async def learning(
        self, request: Request, work: Callable[[Personalizer, Callable[[], bool]], T]
    ) -> T:
        """Have a choice learned from, in turn at the engine; it may embed a whole import first.

        A client that hangs up has chosen all the same, and so has one whose time is over: it is
        told to stop, not left undone.

        Raises
        ------
        Refusal
            If too many wait already, or the time allowed is over.
        """
        left = threading.Event()
        gone = asyncio.ensure_future(_gone(request))
        gone.add_done_callback(lambda _: left.set())
        task = asyncio.ensure_future(self.stoppably(work, self.engine, left))
        self._choices.add(task)
        task.add_done_callback(self._choices.discard)
        task.add_done_callback(heard)
        try:
            await asyncio.wait({task}, timeout=self.patience_s)
        finally:
            gone.cancel()  # from here on nobody waits for it
        if task.done():
            return task.result()
        raise self.too_late(_STILL_IN_LINE)

    def task(self, scope: Scope, wanted: str | None) -> str | None:
        """Return the task to serve, None for the person's own default.

        Raises
        ------
        Refusal
            If the token's scope does not include it.
        """
        name = canonical_name(wanted or self.settings.task or "")
        if not wanted and scope.tasks and name not in scope.tasks:
            return scope.tasks[0]
        if name and not scope.allows(name):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "task_not_allowed",
                f"The token of app {scope.app!r} does not allow task {name[:60]!r}; expected one "
                f"of {', '.join(scope.tasks)}.",
                param="task",
            )  # fmt: skip
        return name or None

    def may_write(self, scope: Scope) -> None:
        """Refuse a token that may only read."""
        if scope.read_only:
            raise Refusal(
                HTTPStatus.FORBIDDEN, "read_only",
                f"The token of app {scope.app!r} may not change anything. Give it one without "
                "--read-only.",
            )  # fmt: skip

    def too_late(self, left: str = "") -> Refusal:
        """Return the error for a request whose time is over; ``left`` is what was left of it."""
        message = (
            f"No answer within {self.settings.timeout_s:g} s. Ask for less, or start the server "
            "with a longer --timeout."
        )
        return Refusal(HTTPStatus.GATEWAY_TIMEOUT, "timeout", f"{message} {left}".strip())

    async def while_connected(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """Do something for a client for as long as it is there to hear of it.

        A client that hangs up has its work cancelled: out of the queue if it waits, and told
        to stop if the LLM is at it.

        Raises
        ------
        Refusal
            If the client hung up, or the time allowed is over.
        """
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_gone(request))
        try:
            async with asyncio.timeout(self.patience_s):
                await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Refusal(HTTPStatus.BAD_REQUEST, "gone", "The client hung up.")
        except TimeoutError:
            raise self.too_late() from None
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


def service_of(request: Request) -> Service:
    """Return what the app serves."""
    return cast("Service", request.state.service)


def scope_of(request: Request) -> Scope:
    """Return what the request's token allows; the guard lets nobody come here without one."""
    return cast("Scope", request.state.scope)


async def _gone(request: Request) -> None:
    """Return when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
