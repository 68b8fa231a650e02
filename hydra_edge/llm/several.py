"""Several answers of one server, in as few requests as it allows.

Owns what is asked for together and what singly, and how many requests are on their way at once.
What one request is and what comes of it, whoever sends it says.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
)
from hydra_edge.llm.dialect import Ask
from hydra_edge.llm.exchange import LOOK_S
from hydra_edge.llm.refusal import Refused
from hydra_edge.llm.reply import Reply

_TOGETHER = 4  # requests on their way at once
# After these, or a refusal of a single answer, further requests would only fail again.
_HOPELESS = (BackendAuthError, BackendRateLimitError, BackendTimeoutError)
NOT_ASKED = BackendError("not asked")


@dataclass(frozen=True, slots=True)
class Wish:
    """Until when replies are wanted; ``tell`` takes each that came, in order of arrival."""

    stop: Callable[[], bool]
    tell: Callable[[Reply], None]


class Several:
    """Asks one server for pools of answers, and learns whether it serves ``n``.

    ``request`` makes one request and returns what came of it, errors included; the function it
    is handed says whether to give up.
    """

    def __init__(self, request: Callable[[Ask, Callable[[], bool]], Reply]) -> None:
        self._request = request
        self._serves_n = True  # until it shows otherwise

    def ask(self, wish: Wish, greedy: Ask, n: int, temperature: float) -> list[Reply]:
        """Ask for ``n`` candidates, the greedy one and sampled ones."""
        singles = [
            replace(greedy, temperature=temperature, seed=greedy.seed + i) for i in range(1, n)
        ]
        together = [replace(singles[0], n=n - 1)] if self._serves_n and n > 2 else singles
        replies = self._send(wish, [greedy, *together])
        if together is singles:
            return replies
        first, joint = replies
        if first.error is None or joint.error is None:
            replies += self._missing(wish, joint, singles)
            if joint.error is not None and not self._serves_n:
                # What was worked around is no reason why a pool is empty.
                replies[1] = replace(joint, error=NOT_ASKED)
        return replies

    def _missing(self, wish: Wish, joint: Reply, singles: Sequence[Ask]) -> list[Reply]:
        """Ask for what a joint request did not bring, and find out whether ``n`` is to blame."""
        left = singles[joint.offered :]
        if joint.error is None:
            if left:
                self._serves_n = False
            return self._send(wish, left)
        if isinstance(joint.error, _HOPELESS):
            return []
        # Where one answer is not to be had either, it was not ``n``.
        replies = self._send(wish, left[:1])
        left = left[1:]
        if replies[0].error is not None:
            return replies
        refused = isinstance(joint.error, Refused) and joint.error.status < 500
        if refused or len(left) < 2:  # too few to be asked for together again, to find out
            self._serves_n = False
        else:
            # The fault may have passed; if it has not, it is ``n``.
            (again,) = self._send(wish, [replace(left[0], n=len(left))])
            replies.append(again)
            if isinstance(again.error, _HOPELESS) or wish.stop():
                return replies
            left = left[again.offered :]
            if left:
                self._serves_n = False
        return replies + self._send(wish, left)

    def _send(self, wish: Wish, asks: Sequence[Ask]) -> list[Reply]:
        """Send requests, a few at a time; one that fails takes no other with it."""
        replies = [Reply(error=NOT_ASKED)] * len(asks)
        places = iter(range(len(asks)))
        turn = threading.Lock()
        over, left = threading.Event(), threading.Event()
        arrived: queue.SimpleQueue[tuple[int, Reply] | None] = queue.SimpleQueue()

        def give_up() -> bool:
            return left.is_set() or wish.stop()

        def work() -> None:
            try:
                while not over.is_set() and not give_up():
                    with turn:
                        place = next(places, None)
                    if place is None:
                        return
                    reply = self._ask_one(asks[place], give_up)
                    arrived.put((place, reply))
                    if self._is_hopeless(reply.error, asks[place]):
                        over.set()
            finally:
                arrived.put(None)

        workers = min(_TOGETHER, len(asks))
        for _ in range(workers):
            # Daemons, not a pool: an interrupted program must not wait for replies to arrive.
            threading.Thread(target=work, daemon=True).start()
        try:
            for place, reply in self._arrivals(arrived, workers, wish.stop):
                replies[place] = reply
                wish.tell(reply)
        finally:
            left.set()
        return replies

    def _ask_one(self, ask: Ask, give_up: Callable[[], bool]) -> Reply:
        """Make one request; a fault of ours is told by its type only, for it may quote the key."""
        try:
            return self._request(ask, give_up)
        except Exception as err:  # else Python would print it, and nobody would be told
            fault = type(err).__name__
        return Reply(
            error=BackendError(
                f"A reply could not be read: got {fault}; expected an answer or an error. Try "
                "again, or use another model."
            )
        )

    @staticmethod
    def _is_hopeless(error: Exception | None, ask: Ask) -> bool:
        """Whether further requests would only fail again."""
        # An error in place of an answer (status 200) may be about that answer only.
        refused = isinstance(error, Refused) and error.status != 200 and ask.n == 1
        return refused or isinstance(error, _HOPELESS)

    @staticmethod
    def _arrivals(
        arrived: queue.SimpleQueue[tuple[int, Reply] | None],
        workers: int,
        stop: Callable[[], bool],
    ) -> Iterator[tuple[int, Reply]]:
        """Yield replies as they come, until all workers are done or it is time to stop."""
        while workers and not (arrived.empty() and stop()):
            try:
                item = arrived.get(timeout=LOOK_S)
            except queue.Empty:
                continue
            if item is None:
                workers -= 1
            else:
                yield item
