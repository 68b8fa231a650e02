"""The guard before every route: who may pass, and what every response says of itself.

A page of another site, or a name that was made to point at this machine, gets nothing; nor does
a program without a token. Nothing of a request is written to any log.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from hydra_edge.errors import ConfigError, HydraError
from hydra_edge.server.refusal import Refusal, error_response
from hydra_edge.server.service import Service

MAX_BODY_BYTES = 1 << 20
# A client sends all turns of a conversation with each question, and an early one may hold a photo.
MAX_CHAT_BYTES = 16 * MAX_BODY_BYTES
CHAT_PATH = "/v1/chat/completions"
BODY_WAIT_S = 10.0
_DISCARDED_BYTES = 2 * MAX_CHAT_BYTES  # of a body too large, so that its sender hears why
_OPEN_PATHS = ("/", "/health")
_OPEN_FOLDER = "/static/"
_READING = ("GET", "HEAD")
_WITHOUT_BODY = (*_READING, "DELETE")
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Middleware that lets a request through only if it may be served.

    A route behind it finds the service in ``request.state.service``, the token's scope in
    ``request.state.scope`` (None on the open routes), and the whole body, at most
    ``MAX_BODY_BYTES`` (a conversation ``MAX_CHAT_BYTES``), waiting to be read. What a route raises
    is answered here.

    Attributes
    ----------
    draining
        Set to take no new request; those that run are finished.
    running
        How many requests run or wait.
    is_crowded
        Says whether more connections are open than whoever runs the server bears.
    """

    def __init__(self, router: Router, service: Service) -> None:
        self._router = router
        self.service = service
        port = service.settings.port
        self._hosts = {f"{name}:{port}" for name in _LOOPBACK_NAMES}
        if port == 80:
            self._hosts |= set(_LOOPBACK_NAMES)
        self.draining = False
        self.running = 0
        self.is_crowded: Callable[[], bool] = lambda: False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or say why not."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        started = is_read = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if self.draining or not is_read:
                    # Else we would wait for a body that nobody wants.
                    headers["Connection"] = "close"
            await send(message)

        self.running += 1
        try:
            body = await self._admit(scope, receive)
            is_read = True
            # Only for an "app" does the router raise what it finds amiss.
            scope["app"] = self._router
            await self._router(scope, _replay(body, receive), send_with_headers)
        except Exception as error:
            known = as_known(error)
            if not started:  # else it is too late to say anything: the answer breaks off
                await error_response(known)(scope, receive, send_with_headers)
        finally:
            self.running -= 1

    async def _admit(self, scope: Scope, receive: Receive) -> bytes:
        """Check a request in the order of what it costs to do so; return its body."""
        if self.draining:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down",
                "The server is shutting down and takes no new request. Ask again when it is back.",
            )  # fmt: skip
        if self.is_crowded():
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "too_many_connections",
                "The server has more connections open than it serves. Close those that are not "
                "needed, and ask again.",
            )  # fmt: skip
        headers = Headers(scope=scope)
        method, path = scope["method"], scope["path"]
        self._check_place(headers)
        is_open = method in _READING and (path in _OPEN_PATHS or path.startswith(_OPEN_FOLDER))
        scope.setdefault("state", {}).update(service=self.service, scope=None)
        if not is_open:
            self._check_site(headers)
            self._check_token(scope, headers)
        if method in _READING:
            return b""
        limit = MAX_CHAT_BYTES if path == CHAT_PATH else MAX_BODY_BYTES
        needs_json = method not in _WITHOUT_BODY
        return await _read_body(headers, receive, limit=limit, needs_json=needs_json)

    def _check_place(self, headers: Headers) -> None:
        """Refuse what was sent to another name or comes from another origin."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise Refusal(
                HTTPStatus.MISDIRECTED_REQUEST, "wrong_host",
                f"The request was sent to {', '.join(hosts)[:100]!r}; expected one of "
                f"{', '.join(sorted(self._hosts))}. Use that address.",
            )  # fmt: skip
        for origin in headers.getlist("origin"):
            # The very place the request was sent to: localhost may not speak for 127.0.0.1.
            if origin.lower() != f"http://{hosts[0].lower()}":
                raise Refusal(
                    HTTPStatus.FORBIDDEN, "wrong_origin",
                    f"The request comes from a page of {origin[:100]!r}; expected one of this "
                    "server's own, or no page at all.",
                )  # fmt: skip

    @staticmethod
    def _check_site(headers: Headers) -> None:
        """Refuse what a browser says another site had it send, where it sends no origin."""
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none"):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "wrong_site",
                f"A page of another site had this request sent ({site[:20]!r}); expected one of "
                "this server's own, or no page at all.",
            )  # fmt: skip

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        kind, _, token = headers.get("authorization", "").partition(" ")
        is_bearer = kind.lower() == "bearer"
        try:
            found = self.service.settings.doorkeeper.scope(token.strip()) if is_bearer else None
        except ConfigError:
            raise Refusal(
                HTTPStatus.INTERNAL_SERVER_ERROR, "apps_unusable",
                "A file of tokens, the owner's or the apps', cannot be used, so nobody is let in. "
                "Run `hydra-edge serve token list`, with the server's --token-file if it has one, "
                "to see why.",
            ) from None  # fmt: skip
        if found is None:
            raise Refusal(
                HTTPStatus.UNAUTHORIZED, "invalid_api_key",
                "The request carries no valid token; expected 'Authorization: Bearer TOKEN' with "
                "the one from the token file, whose path `hydra-edge serve` prints.",
            )  # fmt: skip
        if found.user not in ("", self.service.owner.user):
            raise Refusal(
                HTTPStatus.FORBIDDEN, "wrong_user",
                f"The token of app {found.app!r} is for another user than this server serves.",
            )  # fmt: skip
        scope["state"]["scope"] = found


async def _read_body(headers: Headers, receive: Receive, *, limit: int, needs_json: bool) -> bytes:
    """Read a request's body whole, within bounds of form, size and time."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    declared = headers.get("content-length", "")
    has_body = "transfer-encoding" in headers or declared not in ("", "0")
    # A form or a text can be sent from any page without asking us first; JSON cannot.
    if (needs_json or has_body) and kind != "application/json":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong_content_type",
            f"The request's content type is {kind[:60]!r}; expected application/json.",
        )  # fmt: skip
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "wrong_content_encoding",
            "The request's body is compressed; expected it as it is.",
        )  # fmt: skip
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(HTTPStatus.BAD_REQUEST, "gone", "The client hung up.")
                size += len(message.get("body", b""))
                if size <= limit:
                    parts.append(message.get("body", b""))
                elif size > _DISCARDED_BYTES:
                    break
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refusal(
            HTTPStatus.REQUEST_TIMEOUT, "slow_body",
            f"The request's body did not arrive within {BODY_WAIT_S:g} s. Send it again.",
        ) from None  # fmt: skip
    if size > limit:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large",
            f"The request's body has more than the {limit} bytes allowed. Send less at "
            "a time.",
        )  # fmt: skip
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give a body already read once more; after it comes what the client does next."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def as_known(error: Exception) -> HydraError:
    """Return an error of the tree for whatever a route or the router raised."""
    if isinstance(error, HydraError):
        return error
    if isinstance(error, HTTPException):
        code = HTTPStatus(error.status_code).name.lower()
        message = (
            "The server has no such path or method; expected GET /health, GET /v1/models, or POST "
            "/v1/chat/completions, /v1/rank, /v1/feedback or /v1/records. Check the base URL."
        )
        allowed = (error.headers or {}).get("Allow")
        return Refusal(
            error.status_code, code, message, headers={"Allow": allowed} if allowed else {}
        )
    # Nobody expected it: note that it was, and repeat nobody's text.
    told = f"hydra-edge serve: a fault of its own ({type(error).__name__})\n"
    if os.environ.get("HYDRA_EDGE_DEBUG"):
        told += "".join(traceback.format_exception(error))
    # Whoever started us may have let go of it; a windowed program has none.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(told)
    return Refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal",
        f"hydra-edge stumbled over a fault of its own ({type(error).__name__}). Start the server "
        "with HYDRA_EDGE_DEBUG=1 and report what it prints; read it first, it may hold your texts.",
    )  # fmt: skip
