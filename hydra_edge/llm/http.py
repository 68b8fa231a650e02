"""HTTP to one API: patience, limits, and a key that never shows.

Owns retries, timeouts and reply sizes. Follows no redirect, so the key and the prompt go to the
configured host or nowhere. Knows nothing of prompts or answers.
"""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    ConfigError,
)
from hydra_edge.llm.address import is_loopback, split_base_url
from hydra_edge.llm.exchange import Exchange, GivenUp, Lane, never, pause
from hydra_edge.llm.keys import can_be_sent
from hydra_edge.llm.refusal import Refused, read_refusal, reported

if TYPE_CHECKING:
    import httpx2

MAX_REPLY_BYTES = 4 << 20
_MAX_ERROR_BYTES = 64 << 10
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
# What is read of the environment for a remote server.
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_MORE_TIME = "wait longer: `hydra-edge config set timeout_s SECONDS`"


@dataclass(slots=True)
class Tries:
    """How often one request has failed and been sent again.

    ``faults`` says whether it is also sent again after a fault of the server (5xx).
    """

    made: int = 0
    faults: bool = True


def retry_after(value: str | None, *, now: datetime | None = None) -> float | None:
    """Read a Retry-After header, seconds or a date, as seconds from now; None if unusable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
            if when.tzinfo is None:
                when = when.replace(tzinfo=UTC)
            seconds = (when - (now or datetime.now(UTC))).total_seconds()
        except (TypeError, ValueError, OverflowError):  # no date, or one beyond all calendars
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


@contextmanager
def _explained() -> Iterator[None]:
    """Say in words what of the environment keeps a connection from being made.

    Without its value: a proxy's address may hold a password.
    """
    import httpx2

    try:
        yield
    except (ImportError, ValueError, OSError, httpx2.InvalidURL) as err:
        asked = [n for n in (*_PROXIES, *_CERTIFICATES) if os.environ.get(n)]
        # Only a missing package's name is in these words, never an address.
        package = " and the package `socksio`" if isinstance(err, ImportError) else ""
        raise ConfigError(
            "The proxy or the certificates of this environment cannot be used: got "
            f"{', '.join(asked) or 'none that is set'} ({type(err).__name__}); expected proxies "
            f"such as http://HOST:PORT, a socks5 one{package}, and a file of certificates that is "
            "there. Mend or unset what does not fit."
        ) from None


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
        sleep: Callable[[float, Callable[[], bool]], None] = pause,
    ) -> None:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        parts = split_base_url(base_url)
        if key is not None and not can_be_sent(key):
            raise BackendAuthError(
                "The API key holds characters no key has (a blank, a line break, or beyond "
                "ASCII). Set it again with `hydra-edge keys set`, under its name in `hydra-edge "
                "keys list`."
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
        with _explained():
            trusts = httpx2.create_ssl_context(trust_env=self.is_remote)  # takes long: once for all

        def lane() -> Lane:
            with _explained():
                client = httpx2.Client(
                    headers=headers,
                    timeout=httpx2.Timeout(timeout_s, connect=min(timeout_s, 10.0)),
                    follow_redirects=False,
                    # A proxy from the environment must not see what is meant for this machine.
                    trust_env=self.is_remote,
                    verify=trusts,
                    # A server must not know one prompt's author again by the next.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                    limits=httpx2.Limits(max_connections=1),
                )
            return Lane(client)

        self._new_lane = lane
        self._turn = threading.Lock()
        self._closed = False
        self.posted = 0  # requests that were sent with a body, again after a failure included
        self._idle = [lane()]
        self._running: set[Exchange] = set()

    def __repr__(self) -> str:
        return f"ApiClient({self._root!r})"

    def clean(self, text: str) -> str:
        """Return foreign text fit for an error message: short, printable, without the key."""
        if self._key:
            text = text.replace(self._key, "***")
        return "".join(c if c.isprintable() else " " for c in text[:400]).strip()[:200]

    def post(
        self,
        path: str,
        body: bytes,
        *,
        give_up: Callable[[], bool] = never,
        tries: Tries | None = None,
    ) -> bytes:
        """Send JSON and return the whole reply.

        Parameters
        ----------
        path
            Behind the base URL.
        body
            What is sent.
        give_up
            Asked before each attempt and after each read; True closes the connection.
        tries
            Counts on where a request sent before had failed, and says after what to try again.

        Raises
        ------
        Refused
            If the API will not do it.
        GivenUp
            If told so.
        BackendError
            If no reply came, or it broke off; its subclasses say how.
        """
        tries = Tries() if tries is None else tries
        while True:
            with self.stream(path, body, give_up=give_up, tries=tries) as chunks:
                raw = b"".join(chunks)
            refusal = reported(raw, self.clean)
            if refusal is None:
                return raw
            self.be_patient(refusal, tries, give_up)

    @contextmanager
    def stream(
        self,
        path: str,
        body: bytes,
        *,
        give_up: Callable[[], bool] = never,
        tries: Tries | None = None,
    ) -> Iterator[Iterator[bytes]]:
        """Send JSON and hand over the reply as it arrives (takes and raises what ``post`` does)."""
        exchange = self._open("POST", path, body, give_up, Tries() if tries is None else tries)
        try:
            yield self._chunks(exchange, MAX_REPLY_BYTES, give_up)
        finally:
            exchange.hang_up()

    def get(self, path: str) -> bytes:
        """Ask once, without patience, for something that is only nice to know."""
        exchange, response = self._attempt("GET", path, b"", never)
        try:
            if response.status_code != 200:
                raise self._refusal(exchange, response, never)
            return b"".join(self._chunks(exchange, MAX_REPLY_BYTES, never))
        finally:
            exchange.hang_up()

    def close(self) -> None:
        """Close every connection; calling it twice is harmless."""
        with self._turn:
            self._closed = True
            idle, self._idle = self._idle, []
            running = list(self._running)
        for exchange in running:
            exchange.hang_up()
        for lane in idle:
            lane.close()

    def be_patient(
        self,
        refusal: Refused,
        tries: Tries,
        give_up: Callable[[], bool],
        asked: float | None = None,
    ) -> None:
        """Wait until a refused request may be sent again; ``asked`` is how long the API says.

        Raises
        ------
        Refused
            If it is refused for good.
        BackendError
            If patience is at its end.
        """
        again = refusal.status == 429 or (refusal.status >= 500 and tries.faults)
        if not again or refusal.too_long or refusal.no_system:
            raise refusal
        hopeless = refusal.code == "insufficient_quota" or (asked or 0.0) > _LONGEST_WAIT_S
        if tries.made >= self._retries or hopeless:
            raise self._exhausted(refusal, tries.made + 1, asked) from refusal
        self._pause(tries, give_up, asked)

    # ---- connections

    def _take(self) -> Lane:
        with self._turn:
            if self._closed:
                raise BackendError("This model has been closed. Open it again to use it.")
            return self._idle.pop() if self._idle else self._new_lane()

    def _give_back(self, exchange: Exchange, lane: Lane, fit: bool) -> None:
        with self._turn:
            self._running.discard(exchange)
            keep = fit and not self._closed
            if keep:
                self._idle.append(lane)
        if not keep:
            lane.close()

    # ---- one request

    def _open(
        self, method: str, path: str, body: bytes, give_up: Callable[[], bool], tries: Tries
    ) -> Exchange:
        """Try until a reply begins with 200, patience ends, or it is refused for good."""
        while True:
            if give_up():
                raise GivenUp
            try:
                exchange, response = self._attempt(method, path, body, give_up)
            except BackendError:
                if tries.made >= self._retries or self._closed:
                    raise
                self._pause(tries, give_up)
                continue
            if response.status_code == 200:
                return exchange
            try:
                refusal = self._refusal(exchange, response, give_up)
            finally:
                exchange.hang_up()
            asked = retry_after(response.headers.get("retry-after"))
            self.be_patient(refusal, tries, give_up, asked)

    def _pause(self, tries: Tries, give_up: Callable[[], bool], asked: float | None = None) -> None:
        self._sleep(self._wait(tries.made) if asked is None else asked, give_up)
        tries.made += 1

    @staticmethod
    def _wait(attempt: int) -> float:
        """Seconds until the next attempt: twice as long each time, spread by chance."""
        wait = float(min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S))
        return wait * (0.5 + random.random() / 2)  # noqa: S311 - spreads retries, guards nothing

    def _attempt(
        self, method: str, path: str, body: bytes, give_up: Callable[[], bool]
    ) -> tuple[Exchange, httpx2.Response]:
        """Send a request and wait for its reply to begin."""
        x = self._httpx2
        exchange = Exchange(
            self._take(), method, self._root + path, body, limit=MAX_REPLY_BYTES,
            done=self._give_back,
        )  # fmt: skip
        with self._turn:
            self._running.add(exchange)
            self.posted += method == "POST"
        try:
            exchange.start()
            # Each read has a limit of its own, which a server that drips bytes never meets.
            return exchange, exchange.response(time.monotonic() + self._timeout_s, give_up)
        except BaseException as err:
            exchange.hang_up()
            if isinstance(err, x.TimeoutException | TimeoutError):
                raise BackendTimeoutError(
                    f"{self.host} did not answer: waited {self._timeout_s:g} s. Try again, or "
                    f"{_MORE_TIME}."
                ) from err
            if isinstance(err, x.HTTPError | x.InvalidURL | OSError | RuntimeError):
                raise BackendError(
                    f"{self.host} cannot be reached: {self.clean(str(err)) or type(err).__name__}. "
                    "Check that it runs, and base_url."
                ) from err
            raise

    def _chunks(
        self, exchange: Exchange, limit: int, give_up: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Pass a reply on, within limits of size and time."""
        x = self._httpx2
        size = 0
        try:
            for chunk in exchange.chunks(time.monotonic() + 2 * self._timeout_s, give_up):
                size += len(chunk)
                if size > limit:
                    raise BackendError(
                        f"{self.host} sent too much: got over {limit} bytes; expected a short "
                        "reply. Check base_url."
                    )
                yield chunk
        except x.TimeoutException as err:
            raise BackendTimeoutError(
                f"{self.host} stopped in the middle of a reply: waited {self._timeout_s:g} s. "
                f"Try again, or {_MORE_TIME}."
            ) from err
        except TimeoutError as err:
            raise BackendTimeoutError(
                f"{self.host} took over {2 * self._timeout_s:g} s for one reply. Try again, or "
                f"{_MORE_TIME}."
            ) from err
        except (x.HTTPError, x.StreamError, OSError, RuntimeError) as err:
            raise BackendError(
                f"{self.host} broke off in the middle of a reply: "
                f"{self.clean(str(err)) or type(err).__name__}. Try again."
            ) from err

    # ---- what went wrong

    def _refusal(
        self, exchange: Exchange, response: httpx2.Response, give_up: Callable[[], bool]
    ) -> Refused:
        """Read an error body as far as it can be read; a broken one still has its status."""
        status = response.status_code
        if 300 <= status < 400:
            try:
                target = urlsplit(response.headers.get("location", "")).netloc
            except ValueError:  # no address; what it says would quote it, key and all
                target = ""
            target = self.clean(target) or "another address"
            return Refused(status, f"redirects to {target}, which is not followed")
        try:
            raw = b"".join(self._chunks(exchange, _MAX_ERROR_BYTES, give_up))
            said: Any = json.loads(raw)
        except (BackendError, ValueError, RecursionError):
            return Refused(status, self.clean(response.reason_phrase))
        return read_refusal(status, said, self.clean, response.reason_phrase)

    def _exhausted(self, refusal: Refused, tries: int, asked: float | None) -> BackendError:
        got = f"got {refusal.status} {tries} time{'s' if tries > 1 else ''} ({refusal.message})"
        later = "later" if asked is None else f"in {math.ceil(asked):,} s"
        if refusal.code == "insufficient_quota":
            return BackendRateLimitError(
                f"{self.host} says that what was paid for is used up: {got}. Look at your "
                "plan there.",
                retry_after=math.inf,
            )
        if refusal.status == 429:
            return BackendRateLimitError(
                f"{self.host} says we ask too often: {got}. Try again {later}, or ask for fewer "
                "candidates.",
                retry_after=asked,
            )
        return BackendError(f"{self.host} failed: {got}; expected 200. Try again {later}.")
