"""The personalizer for programs with an event loop, which it never blocks.

Every method of ``Personalizer`` as a coroutine; the work is done on threads of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from hydra_edge.config import Config
from hydra_edge.encoder import TextEncoder
from hydra_edge.errors import CancelledError, ClosedError, ConfigError
from hydra_edge.llm import LLM
from hydra_edge.paths import Paths
from hydra_edge.personalizer import Personalizer, closed_while_adding
from hydra_edge.turns import StopSignal, awaitable
from hydra_edge.types import AddResult, Generation, Progress, Record

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 4  # for all but answers, fits and adding, of each of which one is done at a time
_TOLD_ON_THE_LOOP = ("progress", "on_token", "on_candidate", "on_start", "on_erased", "on_note")
# What a method is told by once nobody waits for it.
_TOLD_TO_STOP = {
    "generate": "cancelled",
    "fit_head": "should_stop",
    "fit_prompts": "should_stop",
    "rank": "should_stop",
    "prompt_for": "should_stop",
    "render_prompts": "should_stop",
    "choose": "should_stop",
    "choose_as": "should_stop",
}
_DONE_ANYHOW = {"choose", "choose_as", "keep_answer"}  # also where it waits for a thread yet


# None rather than Any: a checker knows no result of `asyncio.gather` for two coroutines of Any.
def _coroutine(
    method: Callable[Concatenate[Personalizer, P], T], executor: str = "_others"
) -> Callable[Concatenate[AsyncPersonalizer, P], Coroutine[None, None, T]]:
    """Make a coroutine of a method, with the same parameters and the same meaning."""

    @wraps(method)
    async def call(self: AsyncPersonalizer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        loop, cancelled = asyncio.get_running_loop(), threading.Event()
        # Another copy than that of the work: no two threads may be in one at the same time.
        context = copy_context()
        options: dict[str, Any] = dict(kwargs)
        for name in _TOLD_ON_THE_LOOP:
            if options.get(name) is not None:
                options[name] = _teller(loop, context, options[name], cancelled)
        if stop := _TOLD_TO_STOP.get(method.__name__):
            options[stop] = StopSignal(cancelled.is_set, options.get(stop))
        do = getattr(self.personalizer, method.__name__)
        if method.__name__ == "add":  # which asks nobody whether to stop
            do = partial(self._add, cancelled)
        work = partial(copy_context().run, awaitable(do), *args, **options)
        done: asyncio.Future[T] = loop.run_in_executor(getattr(self, executor), work)
        if method.__name__ in _DONE_ANYHOW:
            done.add_done_callback(heard)
            done = asyncio.shield(done)
        try:
            return await done
        except asyncio.CancelledError:
            cancelled.set()
            raise

    return call


def _closed() -> ClosedError:
    return ClosedError(
        "The personalizer is closed: got a call after close(); expected it before. Open it again."
    )


def heard(done: asyncio.Future[Any]) -> None:
    """Take note of how work ended that nobody waits for."""
    if not done.cancelled():
        done.exception()


def _teller(
    loop: asyncio.AbstractEventLoop,
    context: Context,
    callback: Callable[..., None],
    cancelled: threading.Event,
) -> Callable[..., None]:
    """Let a callback be called on the loop, in order; not any more once nobody waits."""

    def call(*args: Any) -> None:
        if not cancelled.is_set():
            callback(*args)

    def tell(*args: Any) -> None:
        # A loop whose task was cancelled may be closed before the thread has come to an end.
        if not cancelled.is_set() and not loop.is_closed():
            loop.call_soon_threadsafe(call, *args, context=context)

    return tell


class AsyncPersonalizer:
    """One person's personalization for an event loop; see ``Personalizer``.

    Answers are written one at a time, in the order they were asked for, and so are heads fitted;
    everything else goes on beside, and beside a fit while it asks the LLM. While a fit embeds and
    judges, all but ``add`` waits. Cancelling a task that awaits an answer, a fit, a ranking,
    prompts, a choice or ``add`` tells the work to stop; nothing is kept of such an answer, whole
    batches of what was added, and the choice, for the next fit to learn from, unless ``close``
    comes before its turn. Callbacks are called on the loop, whose exception handler is told of
    what they raise, but ``should_stop`` and ``cancelled`` by the thread that works; either
    way, and in an LLM of one's own, context variables are those of whoever called the method.

    Parameters
    ----------
    personalizer
        Becomes this object's to close. Or a function that opens one: ``async with`` calls it on
        a thread. ``open`` and ``from_records`` are made this way.

    Examples
    --------
    >>> import asyncio
    >>> from hydra_edge import AsyncPersonalizer, Record
    >>> async def best(query: str) -> str:
    ...     records = [Record("a long text", "a title", task="note_title")]
    ...     async with AsyncPersonalizer.from_records(records) as p:
    ...         return (await p.rank(query)).records[0].record.output
    >>> asyncio.run(best("another text"))
    'a title'
    """

    def __init__(self, personalizer: Personalizer | Callable[[], Personalizer]) -> None:
        self._open: Callable[..., Personalizer] = (
            personalizer if callable(personalizer) else lambda: personalizer
        )
        self._progress: Progress | None = None  # of opening
        self._person = None if callable(personalizer) else personalizer
        self._closed = False
        self._answers = ThreadPoolExecutor(1, thread_name_prefix="hydra-edge-answers")
        # Of its own: fits that wait for each other would leave none of the others.
        self._fits = ThreadPoolExecutor(1, thread_name_prefix="hydra-edge-fits")
        self._others = ThreadPoolExecutor(_THREADS, thread_name_prefix="hydra-edge")
        # Of its own: all of the others may wait for a fit.
        self._adding = ThreadPoolExecutor(1, thread_name_prefix="hydra-edge-adding")

    @classmethod
    def open(
        cls,
        user: str | None = None,
        *,
        create: bool = False,
        llm: LLM | None = None,
        config: Config | None = None,
        paths: Paths | None = None,
    ) -> Self:
        """Open a person's file on entering ``async with``; see ``Personalizer.open``."""
        return cls(
            partial(Personalizer.open, user, create=create, llm=llm, config=config, paths=paths)
        )

    @classmethod
    def from_records(
        cls,
        records: Iterable[Record],
        *,
        llm: LLM | None = None,
        config: Config | None = None,
        encoder: TextEncoder | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Hold records in memory only; see ``Personalizer.from_records``."""
        made = cls(
            partial(Personalizer.from_records, records, llm=llm, config=config, encoder=encoder)
        )
        made._progress = progress
        return made

    @property
    def personalizer(self) -> Personalizer:
        """The personalizer itself: other threads may use it at the same time."""
        if self._closed:
            raise _closed()
        if self._person is None:
            raise ConfigError(
                "The personalizer is not open yet: got a call before `async with`; expected it "
                "inside. Enter it first."
            )
        return self._person

    add = _coroutine(Personalizer.add, "_adding")
    forget = _coroutine(Personalizer.forget)
    clear_log = _coroutine(Personalizer.clear_log)
    task = _coroutine(Personalizer.task)
    rename_task = _coroutine(Personalizer.rename_task)
    fit_head = _coroutine(Personalizer.fit_head, "_fits")
    fit_prompts = _coroutine(Personalizer.fit_prompts)
    rank = _coroutine(Personalizer.rank)
    prompt_for = _coroutine(Personalizer.prompt_for)
    render_prompts = _coroutine(Personalizer.render_prompts)
    generate = _coroutine(Personalizer.generate, "_answers")
    choose = _coroutine(Personalizer.choose)
    choose_as = _coroutine(Personalizer.choose_as)
    keep_answer = _coroutine(Personalizer.keep_answer)
    undo_choice = _coroutine(Personalizer.undo_choice)
    export_head = _coroutine(Personalizer.export_head)
    import_head = _coroutine(Personalizer.import_head)

    async def stream(
        self, query: str, *, n: int | None = None, **options: Any
    ) -> AsyncGenerator[str | Generation, None]:
        """Answer a query piece by piece: texts as they come, and last the ``Generation``.

        With ``n`` of 1 the pieces are the LLM's own; with more, the one piece is the chosen
        answer, once it is chosen. Leaving the loop early stops the LLM; to have that happen at
        once rather than when Python next tidies up, use ``contextlib.aclosing``.

        Parameters
        ----------
        query, n
            As in ``generate``.
        options
            The other options of ``generate``, except ``on_token``.
        """
        wanted = self.personalizer.config.candidates if n is None else n
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        if wanted == 1:
            options["on_token"] = pieces.put_nowait
        task = asyncio.ensure_future(self.generate(query, n=wanted, **options))
        task.add_done_callback(lambda _: pieces.put_nowait(None))
        told = False
        try:
            while (piece := await pieces.get()) is not None:
                told = True
                yield piece
            generation = await task
            if not told:
                yield generation.text
            yield generation
        finally:
            task.cancel()

    def _add(self, cancelled: threading.Event, /, records: Any, **options: Any) -> AddResult:
        """Add records for as long as somebody waits for it and this is open."""
        if isinstance(records, Iterable):  # else it is one record, or `add` says what is wrong
            records = self._while_wanted(records, cancelled)
        return self.personalizer.add(records, **options)

    def _while_wanted(
        self, records: Iterable[Record], cancelled: threading.Event
    ) -> Iterator[Record]:
        for record in records:
            if cancelled.is_set():
                raise CancelledError("Adding was cancelled. Whole batches before that are stored.")
            if self._closed:
                raise closed_while_adding()
            yield record

    async def close(self) -> None:
        """Close the personalizer; what is under way is told to stop, and waited for."""
        self._closed = True
        await asyncio.to_thread(self._finish)

    def _finish(self) -> None:
        if self._person is not None:
            self._person.close()
        self._answers.shutdown()
        self._fits.shutdown()
        self._others.shutdown()
        self._adding.shutdown()

    async def __aenter__(self) -> Self:
        if self._closed:
            raise _closed()
        if self._person is None:
            loop, cancelled = asyncio.get_running_loop(), threading.Event()
            told: dict[str, Any] = {}
            if self._progress is not None:
                told["progress"] = _teller(loop, copy_context(), self._progress, cancelled)
            enter = partial(copy_context().run, awaitable(self._enter), **told)
            try:
                await loop.run_in_executor(self._others, enter)
            except BaseException:
                cancelled.set()
                self._give_up()
                raise
        return self

    def _enter(self, **told: Any) -> None:
        self._person = self._open(**told)
        if self._closed:  # nobody waits for it any more
            self._person.close()

    def _give_up(self) -> None:
        self._closed = True
        if self._person is not None:
            self._person.close()
        self._fits.shutdown(wait=False)
        self._others.shutdown(wait=False)
        self._adding.shutdown(wait=False)

    async def __aexit__(self, *error: object) -> None:
        await self.close()
