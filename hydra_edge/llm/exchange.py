"""One HTTP request on a thread of its own, so that whoever asked can leave at any moment.

A socket that is being read hears nothing else. So the reading is done elsewhere; whoever asked
waits for what arrives in short looks, and hangs up when it has waited enough.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2

LOOK_S = 0.05  # between two looks whether to give up, while something is awaited
_MADE = ("connect_tcp.complete", "start_tls.complete")  # events that come with a connection


class GivenUp(Exception):
    """Whoever asked wants no reply any more. Stays in this package."""


def never() -> bool:
    """Give up never."""
    return False


def pause(
    seconds: float, give_up: Callable[[], bool], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait, in steps short enough that giving up ends it."""
    left = seconds
    while left > 0.0 and not give_up():
        step = min(left, LOOK_S)
        sleep(step)
        left -= step


class Lane:
    """A client that has one connection at most, so that it is known which one to hang up.

    Parameters
    ----------
    client
        Becomes this object's to close.
    """

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.stream: Any = None  # the connection made last

    def hang_up(self) -> None:
        """Wake a thread that reads or writes; it finds the connection ended."""
        sock = None if self.stream is None else self.stream.get_extra_info("socket")
        if isinstance(sock, socket.socket):
            with suppress(OSError):  # it is closed already
                # The plain socket's, under TLS too: closing would leave the reader asleep.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; calling it twice is harmless."""
        self.client.close()


class Exchange:
    """One request under way; its thread ends with the reply, or when it is hung up.

    Parameters
    ----------
    lane
        What to send it on, this exchange's alone until ``done`` is called.
    method, url, body
        The request.
    limit
        Bytes of a reply after which no more is read.
    done
        Called, by the thread, with whether the lane can serve again.
    """

    def __init__(
        self,
        lane: Lane,
        method: str,
        url: str,
        body: bytes,
        *,
        limit: int,
        done: Callable[[Exchange, Lane, bool], None],
    ) -> None:
        self._lane = lane
        self._request = (method, url, body)
        self._limit = limit
        self._on_done = done
        self._arrived: queue.SimpleQueue[httpx2.Response | bytes | Exception | None] = (
            queue.SimpleQueue()
        )
        self._turn = threading.Lock()
        self._over = self._done = False

    def start(self) -> None:
        """Begin. The thread is a daemon: an interrupted program must not wait for a reply."""
        threading.Thread(target=self._run, daemon=True).start()

    def response(self, until: float, give_up: Callable[[], bool]) -> httpx2.Response:
        """Wait for the beginning of the reply, on the monotonic clock until ``until``.

        Raises
        ------
        GivenUp
            If told so.
        TimeoutError
            If it has not come by then.
        Exception
            Whatever the client raised.
        """
        found: Any = self._next(until, give_up)
        return found  # type: ignore[no-any-return]  # it comes before anything else

    def chunks(self, until: float, give_up: Callable[[], bool]) -> Iterator[bytes]:
        """Yield the rest of the reply as it arrives (raises as ``response`` does)."""
        while (chunk := self._next(until, give_up)) is not None:
            yield chunk  # type: ignore[misc]  # after the beginning there are only bytes

    def hang_up(self) -> None:
        """End the connection if the reply is not whole; calling it twice is harmless."""
        with self._turn:
            self._over = True
            if not self._done:
                self._lane.hang_up()

    def _next(self, until: float, give_up: Callable[[], bool]) -> httpx2.Response | bytes | None:
        while True:
            if give_up():
                raise GivenUp
            left = until - time.monotonic()
            try:
                item = self._arrived.get(timeout=max(0.0, min(left, LOOK_S)))
            except queue.Empty:
                if left <= 0.0:
                    raise TimeoutError from None
                continue
            if isinstance(item, Exception):
                raise item
            return item

    # ---- on the thread

    def _run(self) -> None:
        last: Exception | None = None
        try:
            self._read()
        except Exception as err:  # whoever waits for the reply is told
            last = err
        with self._turn:
            self._done = True
            fit = not self._over
        self._on_done(self, self._lane, fit)
        self._arrived.put(last)

    def _read(self) -> None:
        method, url, body = self._request
        request = self._lane.client.build_request(
            method, url, content=body or None, extensions={"trace": self._watch}
        )
        response = self._lane.client.send(request, stream=True)
        size = 0
        try:
            self._arrived.put(response)
            for chunk in response.iter_raw():
                size += len(chunk)
                self._arrived.put(chunk)
                if size > self._limit:
                    return
        finally:
            response.close()

    def _watch(self, event: str, info: dict[str, Any]) -> None:
        """Remember a connection as it is made; if nobody waits any more, send nothing on it."""
        if not event.endswith(_MADE):
            return
        self._lane.stream = info["return_value"]
        if self._over:
            self._lane.stream.close()
            raise GivenUp
