"""Running the server: a socket on loopback, time limits, and a quiet end.

The first SIGTERM or Ctrl-C lets every request that was taken finish and refuses new ones; the
second, or ``DRAIN_S``, breaks off what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from hydra_edge.aio import AsyncPersonalizer
from hydra_edge.errors import ConfigError
from hydra_edge.privatefiles import make_private_dir, write_private
from hydra_edge.server.app import create_app
from hydra_edge.server.guard import Guard
from hydra_edge.server.page import Page
from hydra_edge.server.service import Settings

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer

HOST = "127.0.0.1"
DRAIN_S = 30.0
HEADER_WAIT_S = 10.0
_IDLE_S = 75  # a kept connection with nothing to say is closed then
_CONNECTIONS = 512  # more are refused with 503
_POLL_S = 0.05


def bind(port: int) -> socket.socket:
    """Listen on this machine's loopback; port 0 is any free one.

    From here on a client waits rather than being refused.

    Raises
    ------
    ConfigError
        If the port is taken or not ours to take.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # "Reuse" lets us have the port soon after it was closed, but on Windows lets others have ours.
    if sys.platform == "win32":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((HOST, port))
        sock.listen()  # two that only bind may have the same port
    except OSError as err:
        sock.close()
        taken = err.errno == errno.EADDRINUSE
        why = "another program listens there" if taken else err.strerror
        raise ConfigError(
            f"Cannot listen on {HOST}:{port}: {why}; expected a free port. Give another one with "
            "--port, or --port 0 for any."
        ) from err
    sock.set_inheritable(False)
    return sock


class _Protocol(H11Protocol):
    """HTTP with a limit to how long a request's headers may take to arrive."""

    _limit: asyncio.TimerHandle | None = None

    # asyncio types the transport of every protocol; one of TCP has one that can be closed.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._limit is None and data:
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._limit = self.loop.call_later(HEADER_WAIT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None


class Server(uvicorn.Server):
    """Uvicorn with an end that loses nothing; ``stop`` begins it from any thread."""

    def __init__(self, app: Guard) -> None:
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self.app = app
        app.is_crowded = lambda: len(self.server_state.connections) >= _CONNECTIONS
        self._ends = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Take no new request, finish those that run, then end; called twice, end at once."""
        if self.app.draining:
            self.should_exit = self.force_exit = True
        self.app.draining = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._ends.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Turn a signal into an orderly end, after which the process leaves with success."""
        self.stop()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped."""
        self._loop = asyncio.get_running_loop()
        if self.app.draining:  # stopped before it began
            self._ends.set()
        drain = asyncio.ensure_future(self._drain())
        try:
            await super().serve(sockets)
        finally:
            drain.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drain

    async def _drain(self) -> None:
        await self._ends.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self.app.running or self.app.service.is_learning:
                    await asyncio.sleep(_POLL_S)
        self.should_exit = True


def serve(
    person: Personalizer,
    settings: Settings,
    sock: socket.socket,
    *,
    ready: Callable[[Server], None],
) -> None:
    """Serve a person until told to stop, then close the personalizer.

    Parameters
    ----------
    ready
        Called once requests will be heard, with the server.
    """
    asyncio.run(_serve(person, settings, sock, ready))


async def _serve(
    person: Personalizer, settings: Settings, sock: socket.socket, ready: Callable[[Server], None]
) -> None:
    async with AsyncPersonalizer(person) as served:
        server = Server(create_app(served, settings, Page().routes()))
        ready(server)
        await server.serve([sock])


def open_page(url: str, folder: Path) -> bool:
    """Open the page in a browser without its token showing in any list of processes.

    The browser is given a file of ours that only its owner can read, which sends it on.

    Returns
    -------
    bool
        Whether there is a browser.
    """
    file = _page_file(folder)
    script = f"location.replace({json.dumps(url)})"
    make_private_dir(folder)
    write_private(file, f"<!doctype html><title>hydra-edge</title><script>{script}</script>\n")
    return webbrowser.open(file.as_uri())


def forget_page(folder: Path) -> None:
    """Remove the file ``open_page`` made; its token is worthless by then."""
    _page_file(folder).unlink(missing_ok=True)


def _page_file(folder: Path) -> Path:
    return folder.absolute() / "open.html"
