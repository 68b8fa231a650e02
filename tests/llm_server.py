"""A hand-written OpenAI-compatible server on loopback that behaves as badly as it is told."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        return json.loads(self.raw)


def choice(text: Any, finish: str = "stop") -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish}


def completion(*texts: Any, tokens: int | None = None) -> dict[str, Any]:
    reply: dict[str, Any] = {"choices": [choice(text) for text in texts]}
    if tokens is not None:
        reply["usage"] = {"completion_tokens": tokens}
    return reply


def delta(text: str | None, finish: str | None = None) -> str:
    content = {} if text is None else {"content": text}
    event = {"choices": [{"delta": content, "finish_reason": finish}]}
    return f"data: {json.dumps(event)}\n\n"


def reported(**fields: Any) -> dict[str, Any]:
    """Make what stands in place of an answer where there was an error."""
    return {"error": fields}


Act = Callable[["Handler", Seen], None]


def answer(body: Any, status: int = 200, **headers: str) -> Act:
    """Answer with JSON, or with bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: Handler, seen: Seen) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return act


def error(status: int, message: str = "no", **fields: Any) -> Act:
    return answer({"error": {"message": message, **fields}}, status)


def cut(raw: bytes, *, promised: int = 10_000) -> Act:
    """Promise more bytes than come, then hang up."""

    def act(handler: Handler, seen: Seen) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(promised))
        handler.end_headers()
        handler.wfile.write(raw)
        handler.close_connection = True

    return act


def stream(*parts: str) -> Act:
    """Send events, then hang up without a word."""

    def act(handler: Handler, seen: Seen) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for part in parts:
            handler.wfile.write(part.encode())
            handler.wfile.flush()
        handler.close_connection = True

    return act


def event(said: Any) -> Act:
    """Send one event."""
    return stream(f"data: {json.dumps(said)}\n\n")


def flood(handler: Handler, seen: Seen) -> None:
    """Send for as long as the other side reads."""
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 65536)


def hang(handler: Handler, seen: Seen) -> None:
    """Say nothing until the server is stopped."""
    handler.server.stopping.wait()
    handler.close_connection = True


def hang_until_left(handler: Handler, seen: Seen) -> None:
    """Say nothing until the other side hangs up."""
    handler.rfile.read(1)
    handler.server.left.set()
    handler.close_connection = True


def hang_up(handler: Handler, seen: Seen) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, raw)
        self.server.take(seen)(self, seen)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Acts what was enqueued, in order; then ``otherwise``, for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[Seen] = []
        self.script: deque[Act] = deque()
        self.otherwise: Act = answer(completion("an answer"))
        self.stopping = threading.Event()
        self.left = threading.Event()  # by a client that was kept waiting
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def take(self, seen: Seen) -> Act:
        with self._turn:
            self.seen.append(seen)
            return self.script.popleft() if self.script else self.otherwise

    def handle_error(self, *args: object) -> None:
        """Clients that hang up are part of the tests."""

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


@dataclass
class Sleeps:
    """Stands in for ``pause``: remembers, does not wait."""

    waited: list[float] = field(default_factory=list)

    def __call__(self, seconds: float, give_up: Callable[[], bool]) -> None:
        self.waited.append(seconds)


def sampler(handler: Handler, seen: Seen) -> None:
    """Behave well: honour n, seed, temperature and stream; answers depend on the seed only."""
    body = seen.body
    base = 0 if body["temperature"] == 0 else body["seed"]
    texts = [f"answer {base + i}\nmore" for i in range(body.get("n", 1))]
    if body.get("stream"):
        stream(*(delta(c) for c in texts[0]), delta(None, "stop"), "data: [DONE]\n\n")(
            handler, seen
        )
    else:
        answer(completion(*texts, tokens=3 * len(texts)))(handler, seen)


def one_by_one(handler: Handler, seen: Seen) -> None:
    """Behave well, but ignore n."""
    body = seen.body
    body.pop("n", None)
    sampler(handler, Seen(seen.method, seen.path, seen.headers, json.dumps(body).encode()))
