"""HTTP to one API: patience, limits, and a key that never shows.

Owns retries, timeouts, reply sizes, and what an error body says. Follows no redirect, so the
key and the prompt go to the configured host or nowhere. Knows nothing of prompts or answers.
"""

from __future__ import annotations

import ipaddress
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    ConfigError,
)

if TYPE_CHECKING:
    import httpx2

MAX_REPLY_BYTES = 4 << 20
_MAX_ERROR_BYTES = 64 << 10
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})


class Refused(Exception):
    """The API answered, but not with 200; all it says is safe to show. Stays in this package."""

    def __init__(self, status: int, message: str, *, code: str = "", param: str = "") -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    @property
    def too_long(self) -> bool:
        """Whether the prompt did not fit."""
        # Some servers only say so in words, which all take from the first such API.
        return (
            self.status == 413
            or self.code in _CONTEXT_CODES
            or "maximum context length" in self.message
        )


class GivenUp(Exception):
    """Whoever asked wants no reply any more. Stays in this package."""


def _never() -> bool:
    return False


def split_base_url(base_url: str) -> SplitResult:
    """Check the address of an API.

    Raises
    ------
    ConfigError
        If it is not a plain http(s) address.
    """
    try:
        parts = urlsplit(base_url.strip())
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if parts.username or parts.password:
        # Not repeated in the message: it holds a secret.
        raise ConfigError(
            "base_url carries a user name or password; expected a plain address. Store the key "
            "with `hydra-edge keys set openai` instead."
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok or parts.query:
        raise ConfigError(
            f"base_url = {base_url!r} cannot be used; expected http(s)://host[:port]/path, such "
            "as http://127.0.0.1:11434/v1. Correct it with `hydra-edge config set base_url`."
        )
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain; any doubt means it is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None if unusable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT_S) if seconds == seconds else None  # noqa: PLR0124 - NaN


class ApiClient:
    """Requests to one base URL; safe to use from several threads.

    ``timeout_s`` bounds the wait for the beginning of a reply and, twice over, the whole of it;
    ``retries`` are made after 429, 5xx, timeouts and failed connections, never after a reply
    has begun.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        import httpx2

        parts = split_base_url(base_url)
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise BackendAuthError(
                "The API key holds characters no key has (a blank, a line break, or beyond "
                "ASCII). Set it again with `hydra-edge keys set openai`."
            )
        self.host = parts.netloc
        self.is_remote = not is_loopback(parts.hostname or "")
        self._root = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        self._key = key or ""
        self._timeout_s = timeout_s
        self._retries = max(0, retries)
        self._sleep = sleep
        self._httpx2 = httpx2
        # Identity: a reply's size is then the size it has in memory.
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._client = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
            follow_redirects=False,
            # A proxy from the environment must not see what is meant for this machine.
            trust_env=self.is_remote,
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"ApiClient({self._root!r})"

    def clean(self, text: str) -> str:
        """Return foreign text fit for an error message: short, printable, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in text[:400]).strip()[:200]

    def post(self, path: str, body: bytes, *, give_up: Callable[[], bool] = _never) -> bytes:
        """Send JSON and return the whole reply.

        Parameters
        ----------
        path
            Behind the base URL.
        body
            What is sent.
        give_up
            Asked before each attempt and after each read; True closes the connection.

        Raises
        ------
        Refused
            If the API will not do it.
        GivenUp
            If told so.
        BackendError
            If no reply came, or it broke off; its subclasses say how.
        """
        with self.stream(path, body, give_up=give_up) as chunks:
            return b"".join(chunks)

    @contextmanager
    def stream(
        self, path: str, body: bytes, *, give_up: Callable[[], bool] = _never
    ) -> Iterator[Iterator[bytes]]:
        """Send JSON and hand over the reply as it arrives (raises as ``post`` does)."""
        response = self._open("POST", path, body, give_up)
        try:
            yield self._chunks(response, MAX_REPLY_BYTES, give_up)
        finally:
            response.close()

    def get(self, path: str) -> bytes:
        """Ask once, without patience, for something that is only nice to know."""
        response = self._attempt("GET", path, b"")
        try:
            if response.status_code != 200:
                raise self._refusal(response)
            return b"".join(self._chunks(response, MAX_REPLY_BYTES))
        finally:
            response.close()

    def close(self) -> None:
        """Close every connection; calling it twice is harmless."""
        self._client.close()

    # ---- one request

    def _open(
        self, method: str, path: str, body: bytes, give_up: Callable[[], bool]
    ) -> httpx2.Response:
        """Try until a reply begins with 200, patience ends, or it is refused for good."""
        if self._client.is_closed:
            raise BackendError("This model has been closed. Open it again to use it.")
        attempt = 0
        while True:
            asked = None
            if give_up():
                raise GivenUp
            try:
                response = self._attempt(method, path, body)
            except BackendError:
                if attempt == self._retries:
                    raise
            else:
                if response.status_code == 200:
                    return response
                try:
                    refusal = self._refusal(response)
                    asked = retry_after(response.headers.get("retry-after"))
                finally:
                    response.close()
                again = refusal.status == 429 or refusal.status >= 500
                if not again or refusal.too_long:
                    raise refusal
                if attempt == self._retries:
                    raise self._exhausted(refusal) from refusal
            self._sleep(self._wait(attempt) if asked is None else asked)
            attempt += 1

    @staticmethod
    def _wait(attempt: int) -> float:
        """Seconds until the next attempt: twice as long each time, spread by chance."""
        wait = float(min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S))
        return wait * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries, guards nothing

    def _attempt(self, method: str, path: str, body: bytes) -> httpx2.Response:
        x = self._httpx2
        try:
            request = self._client.build_request(method, self._root + path, content=body or None)
            return self._client.send(request, stream=True)
        except x.TimeoutException as err:
            raise BackendTimeoutError(
                f"{self.host} did not answer: waited {self._timeout_s:g} s. Try again, or raise "
                "timeout_s."
            ) from err
        except (x.HTTPError, x.InvalidURL, OSError, RuntimeError) as err:
            raise BackendError(
                f"{self.host} cannot be reached: {self.clean(str(err)) or type(err).__name__}. "
                "Check that it runs, and base_url."
            ) from err

    def _chunks(
        self, response: httpx2.Response, limit: int, give_up: Callable[[], bool] = _never
    ) -> Iterator[bytes]:
        """Pass a reply on, within limits of size and time."""
        x = self._httpx2
        deadline = time.monotonic() + 2 * self._timeout_s
        size = 0
        try:
            for chunk in response.iter_raw():
                size += len(chunk)
                if size > limit:
                    raise BackendError(
                        f"{self.host} sent too much: got over {limit} bytes; expected a short "
                        "reply. Check base_url."
                    )
                yield chunk
                if give_up():
                    raise GivenUp
                if time.monotonic() > deadline:
                    raise BackendTimeoutError(
                        f"{self.host} took over {2 * self._timeout_s:g} s for one reply. Try "
                        "again, or raise timeout_s."
                    )
        except x.TimeoutException as err:
            raise BackendTimeoutError(
                f"{self.host} stopped in the middle of a reply: waited {self._timeout_s:g} s. "
                "Try again, or raise timeout_s."
            ) from err
        except (x.HTTPError, x.StreamError, OSError) as err:
            raise BackendError(
                f"{self.host} broke off in the middle of a reply: "
                f"{self.clean(str(err)) or type(err).__name__}. Try again."
            ) from err

    # ---- what went wrong

    def _refusal(self, response: httpx2.Response) -> Refused:
        """Read an error body as far as it can be read; a broken one still has its status."""
        status = response.status_code
        if 300 <= status < 400:
            target = urlsplit(response.headers.get("location", "")).netloc or "another address"
            return Refused(status, f"redirects to {self.clean(target)}, which is not followed")
        try:
            raw = b"".join(self._chunks(response, _MAX_ERROR_BYTES))
            parsed: Any = json.loads(raw)
        except (BackendError, ValueError, RecursionError):
            return Refused(status, self.clean(response.reason_phrase))
        error = parsed.get("error", parsed) if isinstance(parsed, dict) else {}
        if not isinstance(error, dict):
            return Refused(status, self.clean(str(error)))
        # Servers put the machine-readable word in either place, and a bare status in the other.
        code = next((c for c in (error.get("code"), error.get("type")) if isinstance(c, str)), "")
        if error.get("type") in _CONTEXT_CODES:
            code = error["type"]
        message = error.get("message") or error.get("detail") or response.reason_phrase
        return Refused(
            status,
            self.clean(str(message)),
            code=self.clean(code),
            param=self.clean(str(error.get("param") or "")),
        )

    def _exhausted(self, refusal: Refused) -> BackendError:
        tries = self._retries + 1
        if refusal.status == 429:
            return BackendRateLimitError(
                f"{self.host} says we ask too often: got 429 {tries} times ({refusal.message}). "
                "Wait, or ask for fewer candidates."
            )
        return BackendError(
            f"{self.host} failed: got {refusal.status} {tries} times ({refusal.message}); "
            "expected 200. Try again later."
        )
