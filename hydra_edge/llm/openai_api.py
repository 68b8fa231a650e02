"""Any OpenAI-compatible API as an LLM: the dialects servers speak, and answers that arrive in part.

Owns the request body, what is made of a reply, and how many requests a pool of candidates
takes. Patience and limits are ``http``'s. Sends exactly what ``render`` shows.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    BackendRateLimitError,
    BackendTimeoutError,
    ContextLengthError,
    HydraError,
    UnknownModelError,
)
from hydra_edge.llm.exchange import LOOK_S, GivenUp, pause
from hydra_edge.llm.http import ApiClient, Refused, Tries
from hydra_edge.llm.members import find_member
from hydra_edge.llm.reply import (
    Reply,
    ReportedError,
    feed_choice,
    parse_object,
    read_events,
    read_reply,
    spent,
)
from hydra_edge.llm.request import check_request, repeated, without_system
from hydra_edge.llm.text import AnswerText, well_formed
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, JsonDict

if TYPE_CHECKING:
    import httpx2

_TOGETHER = 4  # requests on their way at once
_SYSTEM = "system role"  # no parameter, and no word of a refusal could be taken for it
# What a server may say it does not take, and what is sent in its place (None: nothing; what the
# system would have said, the user says).
_DIALECT = {
    "max_tokens": "max_completion_tokens", "temperature": None, "stop": None, "seed": None,
    "stream_options": None, _SYSTEM: None,
}  # fmt: skip
# Whatever is amiss with one of these, an answer asked for without it is the answer.
_SPARE = frozenset({"seed", "stop", "stream_options"})
# After these, or a refusal of a single answer, further requests would only fail again.
_HOPELESS = (BackendAuthError, BackendRateLimitError, BackendTimeoutError)


_NOT_ASKED = BackendError("not asked")


def _never() -> bool:
    return False


def _billed(answers: list[Completion], prompt_tokens: int) -> list[Completion]:
    """Let the first answer carry what reading a prompt cost."""
    if not answers or not prompt_tokens:
        return answers
    first, *others = answers
    return [replace(first, prompt_tokens=first.prompt_tokens + prompt_tokens), *others]


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request of a pool."""

    n: int
    temperature: float
    seed: int


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked of a whole pool; ``tell`` takes each reply that came, in order of arrival."""

    prompt: Prompt
    max_tokens: int
    stop: Callable[[], bool]
    tell: Callable[[Reply], None]


class OpenAIApi:
    """A chat model behind an OpenAI-compatible API.

    Parameters
    ----------
    model
        The model's name at that server.
    base_url
        Where ``/chat/completions`` hangs; a loopback host makes the model local.
    api_key
        Sent as a bearer token to that host only; never shown.
    timeout_s
        Longest wait for the beginning of a reply; twice that for the whole of it.
    retries
        Further attempts after 429, 5xx, timeouts and failed connections. After 5xx a request for
        several answers is followed by one for a single answer instead.
    transport
        Replaces the network (tests).
    sleep
        Waits between attempts, given seconds and what ends it early (tests).

    Raises
    ------
    ConfigError
        If ``base_url`` is not a plain http(s) address.
    BackendAuthError
        If the key could not be sent in a header.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float, Callable[[], bool]], None] = pause,
    ) -> None:
        self._client = ApiClient(
            base_url, key=api_key, timeout_s=timeout_s, retries=retries, transport=transport,
            sleep=sleep,
        )  # fmt: skip
        self._model = model
        self._unspoken: frozenset[str] = frozenset()  # parameters this server does not take
        self._serves_n = True  # until it shows otherwise
        self.name = f"openai:{model}@{self._client.host}"
        self.is_remote = self._client.is_remote

    def __repr__(self) -> str:
        return f"OpenAIApi({self.name!r})"

    def render(
        self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0, stream: bool = False
    ) -> str:
        """Return the body of the first request ``complete`` would send, byte for byte.

        ``max_tokens`` defaults to the task's; ``stream`` is what a call with ``on_token`` sends.
        """
        limit = prompt.task.max_tokens if max_tokens is None else max_tokens
        ask = _Ask(1, 0.0, seed)
        return self._body(prompt, ask, limit, self._unspoken, stream=stream).decode("utf-8")

    def complete(
        self,
        prompt: Prompt,
        *,
        n: int = 1,
        temperature: float = 0.8,
        max_tokens: int = 48,
        choices: Sequence[str] | None = None,
        seed: int = 0,
        on_token: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_candidate: Callable[[Completion], None] | None = None,
    ) -> list[Completion]:
        """Sample up to ``n`` answers (see ``LLM.complete``).

        The greedy answer is one request, the others are one more where the server serves
        ``n``, else one each. With ``choices``, answers that name no member, or several, are
        dropped. Told to stop, it hangs up, returns at once and asks for nothing more, whatever
        the server is at; an answer that was being streamed is thrown away. Raises also
        ``UnknownModelError`` where the server lists its models and this is none of them.
        """
        members = check_request(
            n=n, temperature=temperature, max_tokens=max_tokens, choices=choices,
            on_token=on_token,
        )  # fmt: skip
        stop = should_stop or _never
        distinct = n if temperature > 0.0 else 1

        def usable(reply: Reply) -> list[Completion]:
            kept = self._members(reply.completions, members) if members else [*reply.completions]
            return _billed(kept, reply.prompt_tokens)

        def tell(reply: Reply) -> None:
            if on_candidate is not None:
                for answer in usable(reply):
                    for copy in repeated(answer, n // distinct):
                        on_candidate(copy)

        wish = _Wish(prompt, max_tokens, stop, tell)
        if on_token is not None and members is None:
            replies = self._stream(wish, _Ask(1, 0.0, seed), on_token)
        else:
            replies = self._pool(wish, distinct, temperature, seed)
        told = [(reply, usable(reply)) for reply in replies]
        wasted = sum(reply.prompt_tokens for reply, kept in told if not kept)
        answers = _billed([answer for _, kept in told for answer in kept], wasted)
        if not answers and not stop():
            self._fail(replies, members)
        if answers and on_token is not None and members is not None:
            on_token(answers[0].text)
        return answers if distinct == n or not answers else repeated(answers[0], n)

    def close(self) -> None:
        """Close every connection; calling it twice is harmless."""
        self._client.close()

    # ---- requests

    def _body(
        self, prompt: Prompt, ask: _Ask, max_tokens: int, unspoken: frozenset[str], *, stream: bool
    ) -> bytes:
        messages = prompt.messages()
        body: JsonDict = {
            "model": self._model,
            "messages": without_system(messages) if _SYSTEM in unspoken else messages,
            "max_tokens": max_tokens,
            "temperature": ask.temperature,
            "stop": list(prompt.task.stop),
            "seed": ask.seed,
        }
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        for name in unspoken & body.keys():
            value, other = body.pop(name), _DIALECT[name]
            if other is not None:
                body[other] = value
        if ask.n > 1:
            body["n"] = ask.n
        return well_formed(json.dumps(body, ensure_ascii=False)).encode("utf-8")

    def _pool(self, wish: _Wish, n: int, temperature: float, seed: int) -> list[Reply]:
        """Ask for ``n`` candidates in as few requests as this server allows."""
        singles = [_Ask(1, temperature, seed + i) for i in range(1, n)]
        together = [replace(singles[0], n=n - 1)] if self._serves_n and n > 2 else singles
        replies = self._send(wish, [_Ask(1, 0.0, seed), *together])
        if together is singles:
            return replies
        greedy, joint = replies
        if greedy.error is None or joint.error is None:
            replies += self._missing(wish, joint, singles)
        return replies

    def _missing(self, wish: _Wish, joint: Reply, singles: Sequence[_Ask]) -> list[Reply]:
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

    def _send(self, wish: _Wish, asks: Sequence[_Ask]) -> list[Reply]:
        """Send requests, a few at a time; one that fails takes no other with it."""
        replies = [Reply(error=_NOT_ASKED)] * len(asks)
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
                    reply = self._reply(wish, asks[place], give_up)
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

    @staticmethod
    def _is_hopeless(error: Exception | None, ask: _Ask) -> bool:
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

    def _reply(self, wish: _Wish, ask: _Ask, give_up: Callable[[], bool]) -> Reply:
        """Ask once; what went wrong is part of the reply."""
        prompt = wish.prompt
        try:
            while True:
                unspoken = self._unspoken
                body = self._body(prompt, ask, wish.max_tokens, unspoken, stream=False)
                # A fault at several answers may be about their number: one answer tells.
                tries = Tries(faults=ask.n == 1)
                try:
                    raw = self._client.post("chat/completions", body, give_up=give_up, tries=tries)
                except Refused as refusal:
                    if not self._learns(refusal, unspoken):
                        raise
                else:
                    greedy = ask.temperature == 0.0
                    return read_reply(raw, self.name, n=ask.n, greedy=greedy, stop=prompt.task.stop)
        except GivenUp:
            return Reply(error=_NOT_ASKED)
        except (Refused, HydraError) as err:
            return Reply(error=err)

    def _learns(self, refusal: Refused, unspoken: frozenset[str]) -> bool:
        """Whether the server named a parameter that can be left out next time."""
        names: set[str] = set()
        if refusal.code in {"unsupported_parameter", "unsupported_value"}:
            names.add(refusal.param)
        # Servers without such codes only say the name, each in words of its own.
        if "stream_options" in refusal.message:
            names.add("stream_options")
        if refusal.no_system:
            names.add(_SYSTEM)
        if refusal.status in {400, 422} and not refusal.too_long:
            names |= refusal.named & (_DIALECT.keys() if refusal.unknown else _SPARE)
        names &= _DIALECT.keys() - unspoken
        self._unspoken |= names
        return bool(names)

    # ---- streaming

    def _stream(self, wish: _Wish, ask: _Ask, on_token: Callable[[str], None]) -> list[Reply]:
        tries = Tries()
        while True:
            unspoken = self._unspoken
            body = self._body(wish.prompt, ask, wish.max_tokens, unspoken, stream=True)
            # Anew for each try: of a thought that broke off nothing may be left behind.
            answer = AnswerText(wish.prompt.task.stop, on_token)
            try:
                reply = self._streamed(body, answer, wish.stop, tries)
            except GivenUp:
                return []
            except Refused as refusal:
                if not self._learns(refusal, unspoken):
                    raise self._refused(refusal) from refusal
            else:
                if reply is not None:
                    wish.tell(reply)
                    return [reply]

    def _streamed(
        self, body: bytes, answer: AnswerText, stop: Callable[[], bool], tries: Tries
    ) -> Reply | None:
        """Ask once and follow the answer; None if it may be asked for again, after a wait."""
        try:
            with self._client.stream("chat/completions", body, give_up=stop, tries=tries) as chunks:
                return self._follow(chunks, answer)
        except ReportedError as err:
            self._client.be_patient(self._client.refusal(200, err.said), tries, stop)
            return None

    def _follow(self, chunks: Iterable[bytes], answer: AnswerText) -> Reply:
        """Read a streamed answer; what came before it broke off is kept."""
        finish, tokens, read = "", 0, 0
        try:
            for event in read_events(chunks, self.name):
                tokens = spent(event, "completion_tokens") or tokens
                read = spent(event, "prompt_tokens") or read
                choices = event.get("choices")
                for choice in choices[:1] if isinstance(choices, list) else []:
                    whole = isinstance(choice, dict) and "message" in choice
                    ended = feed_choice(answer, choice, "message" if whole else "delta")
                    finish = finish or ended
                if answer.stopped:
                    break
        except BackendError:
            if not answer.text:
                raise
            finish = "cut"
        text = answer.finish()
        if not text:
            raise self._nothing(1, thinks=answer.thinks or answer.thought)
        only = Completion(text, greedy=True, tokens=tokens, finish=finish or "cut")
        return Reply((only,), 1, read)

    # ---- answers

    @staticmethod
    def _members(answers: Iterable[Completion], members: Sequence[str]) -> list[Completion]:
        """Return the answers that mean a member, spelled as it is there."""
        found = [(answer, find_member(answer.text, members)) for answer in answers]
        return [replace(answer, text=member) for answer, member in found if member is not None]

    # ---- what went wrong

    def _fail(self, replies: Sequence[Reply], members: Sequence[str] | None) -> NoReturn:
        """Say why a pool is empty: the first request's reason stands for all."""
        said = [answer.text for reply in replies for answer in reply.completions]
        if said and members:
            raise BackendError(
                f"{self.name} chose none of the {len(members)} allowed answers: got "
                f"{self._client.clean(said[0][:80])!r}; expected one such as {members[0]!r}. Use "
                "another model, or a task of kind text."
            )
        errors = [r.error for r in replies if r.error not in (None, _NOT_ASKED)]
        error = errors[0] if errors else None
        if isinstance(error, Refused):
            raise self._refused(error) from error
        raise error or self._nothing(len(replies), thinks=any(reply.thinks for reply in replies))

    def _nothing(self, replies: int, *, thinks: bool) -> BackendError:
        if thinks:
            return BackendError(
                f"{self.name} thinks aloud: got thoughts only; expected an answer. Turn the "
                "model's reasoning off, or use another model."
            )
        return BackendError(
            f"{self.name} wrote nothing: got {replies} empty replies; expected text. Raise "
            "max_tokens, or rephrase the query."
        )

    def _refused(self, refusal: Refused) -> HydraError:
        if refusal.too_long:
            return ContextLengthError(
                f"Prompt does not fit {self.name}: {refusal.message}. Show fewer or shorter "
                "records, or ask for a shorter answer."
            )
        if refusal.status in {401, 403}:
            return BackendAuthError(
                f"{self.name} refused the key: got {refusal.status} ({refusal.message}). Set it "
                "again under its name in `hydra-edge keys list`; without one: `hydra-edge keys set "
                "openai`."
            )
        if refusal.status == 200:
            return BackendError(
                f"{self.name} reported an error in place of an answer: {refusal.message}. Try "
                "again, or use another model."
            )
        models = self._models() if refusal.status == 404 else []
        if refusal.code == "model_not_found" or (models and self._model not in models):
            known = ", ".join(models[:20]) or "not listed"
            return UnknownModelError(
                f"{self._client.host} has no model {self._model!r}. Its models: {known}. Choose "
                "one with -m openai:MODEL."
            )
        return BackendError(
            f"{self.name} refused the request: got {refusal.status} ({refusal.message}); expected "
            "200. Check base_url and the model's name."
        )

    def _models(self) -> list[str]:
        """List the server's models, as far as it tells."""
        try:
            listed = parse_object(self._client.get("models"), self.name).get("data")
        except (Refused, BackendError):
            return []
        entries = listed if isinstance(listed, list) else []
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
        return [self._client.clean(name) for name in names if isinstance(name, str)]
