"""Any OpenAI-compatible API as an LLM, with answers that arrive in part.

Owns what is made of replies and refusals. A request's body is ``dialect``'s, how many of them a
pool of candidates takes is ``several``'s, patience and limits are ``http``'s. Sends exactly what
``render`` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NoReturn

from hydra_edge.errors import (
    BackendAuthError,
    BackendError,
    ContextLengthError,
    HydraError,
    UnknownModelError,
)
from hydra_edge.llm.dialect import Ask, turned_down, write_body
from hydra_edge.llm.exchange import GivenUp, never, pause
from hydra_edge.llm.firstline import chat_answer, chat_stops
from hydra_edge.llm.http import ApiClient, Tries
from hydra_edge.llm.members import find_member
from hydra_edge.llm.names import REMOTE
from hydra_edge.llm.refusal import Refused, read_refusal
from hydra_edge.llm.reply import (
    Reply,
    ReportedError,
    Silence,
    feed_choice,
    has_thought,
    longest_answer,
    parse_object,
    read_events,
    read_reply,
    spent,
)
from hydra_edge.llm.request import check_request, repeated
from hydra_edge.llm.several import NOT_ASKED, Several, Wish
from hydra_edge.llm.text import AnswerText
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion


def _billed(answers: list[Completion], prompt_tokens: int) -> list[Completion]:
    """Let the first answer carry what reading a prompt cost."""
    if not answers or not prompt_tokens:
        return answers
    first, *others = answers
    return [replace(first, prompt_tokens=first.prompt_tokens + prompt_tokens), *others]


def _errors(replies: Iterable[Reply]) -> list[Exception]:
    """Return what went wrong, but for what was not asked for at all."""
    return [r.error for r in replies if r.error is not None and r.error is not NOT_ASKED]


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
    reasoning_effort
        How hard the model is told to think, in the server's words; empty: it is told nothing.
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
        reasoning_effort: str = "",
        sleep: Callable[[float, Callable[[], bool]], None] = pause,
    ) -> None:
        self._client = ApiClient(
            base_url, key=api_key, timeout_s=timeout_s, retries=retries, sleep=sleep
        )
        self._model = model
        self._effort = reasoning_effort
        self._unspoken: frozenset[str] = frozenset()  # parameters this server does not take
        self._several = Several(self._reply)
        self.name = f"{REMOTE}{model}@{self._client.host}"
        self.is_remote = self._client.is_remote

    def __repr__(self) -> str:
        return f"OpenAIApi({self.name!r})"

    @property
    def requests(self) -> int:
        """How many requests for answers were sent, those sent again after a failure included."""
        return self._client.posted

    def render(
        self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0, stream: bool = False
    ) -> str:
        """Return the body of the first request ``complete`` would send, byte for byte.

        ``max_tokens`` defaults to the task's; ``stream`` is what a call with ``on_token`` sends.
        """
        limit = prompt.task.max_tokens if max_tokens is None else max_tokens
        ask = Ask(prompt, limit, seed, stream=stream, effort=self._effort)
        return write_body(self._model, ask, self._unspoken).decode("utf-8")

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
        on_short: Callable[[Exception], None] | None = None,
    ) -> list[Completion]:
        """Sample up to ``n`` answers (see ``LLM.complete``).

        The greedy answer is one request, the others are one more where the server serves
        ``n``, else one each. An answer far beyond ``max_tokens`` is cut off. With ``choices``,
        answers that name no member, or several, are dropped. Told to stop, it hangs up, returns
        at once and asks for nothing more, whatever the server is at; an answer that was being
        streamed is thrown away. ``on_short`` is told what kept some of the answers from coming.

        Raises also ``UnknownModelError`` where the server lists its models and this is none.
        """
        members = check_request(
            n=n, temperature=temperature, max_tokens=max_tokens, choices=choices,
            on_token=on_token,
        )  # fmt: skip
        stop = should_stop or never
        distinct = n if temperature > 0.0 else 1

        def usable(reply: Reply) -> list[Completion]:
            kept = self._members(reply.completions, members) if members else [*reply.completions]
            return _billed(kept, reply.prompt_tokens)

        def tell(reply: Reply) -> None:
            if on_candidate is not None:
                for answer in usable(reply):
                    for copy in repeated(answer, n // distinct):
                        on_candidate(copy)

        wish, greedy = Wish(stop, tell), Ask(prompt, max_tokens, seed, effort=self._effort)
        if on_token is not None and members is None:
            replies = self._stream(wish, replace(greedy, stream=True), on_token)
        else:
            replies = self._several.ask(wish, greedy, distinct, temperature)
        told = [(reply, usable(reply)) for reply in replies]
        wasted = sum(reply.prompt_tokens for reply, kept in told if not kept)
        answers = _billed([answer for _, kept in told for answer in kept], wasted)
        if not answers and not stop():
            self._fail(replies, members)
        if on_short is not None and sum(r.offered for r in replies) < distinct and not stop():
            for error in _errors(replies)[-1:]:  # one before it may have been made up for
                on_short(self._refused(error) if isinstance(error, Refused) else error)
        if answers and on_token is not None and members is not None:
            on_token(answers[0].text)
        return answers if distinct == n or not answers else repeated(answers[0], n)

    def close(self) -> None:
        """Close every connection; calling it twice is harmless."""
        self._client.close()

    # ---- requests

    def _reply(self, ask: Ask, give_up: Callable[[], bool]) -> Reply:
        """Ask once; what went wrong is part of the reply."""
        greedy = ask.temperature == 0.0
        earlier = Reply()
        try:
            while True:
                unspoken = self._unspoken
                body = write_body(self._model, ask, unspoken)
                # A fault at several answers may be about their number: one answer tells.
                tries = Tries(faults=ask.n == 1)
                try:
                    raw = self._client.post("chat/completions", body, give_up=give_up, tries=tries)
                except Refused as refusal:
                    if not self._learns(refusal, unspoken):
                        raise
                    continue
                reply = read_reply(
                    raw, self.name, ask.prompt, n=ask.n, greedy=greedy, max_tokens=ask.max_tokens
                ).after(earlier)
                if not self._cut_short(reply, ask, unspoken):
                    return reply
                earlier = reply
        except GivenUp:
            return Reply(error=NOT_ASKED)
        except (Refused, HydraError) as err:
            return Reply(error=err)

    def _learns(self, refusal: Refused, unspoken: frozenset[str]) -> bool:
        """Whether the server turned down a part of the request that can be left out next time."""
        names = turned_down(refusal) - unspoken
        self._unspoken |= names
        return bool(names)

    def _cut_short(self, reply: Reply, ask: Ask, unspoken: frozenset[str]) -> bool:
        """Whether there is no answer since our stop ended a thought; it is left out next time.

        Answers end there all the same: so says who reads them.
        """
        if not reply.ended or "stop" in unspoken or not chat_stops(ask.prompt.task):
            return False
        self._unspoken |= {"stop"}
        return not reply.completions

    # ---- streaming

    def _stream(self, wish: Wish, ask: Ask, on_token: Callable[[str], None]) -> list[Reply]:
        tries, earlier = Tries(), Reply()
        while True:
            unspoken = self._unspoken
            body = write_body(self._model, ask, unspoken)
            # Anew for each try: of a thought that broke off nothing may be left behind.
            longest = longest_answer(ask.max_tokens)
            answer = chat_answer(ask.prompt, on_token, longest=longest)
            try:
                reply = self._streamed(body, answer, wish.stop, tries)
            except GivenUp:
                return []
            except Refused as refusal:
                if not self._learns(refusal, unspoken):
                    raise self._refused(refusal) from refusal
                continue
            if reply is None:
                continue
            reply = reply.after(earlier)
            if self._cut_short(reply, ask, unspoken):
                earlier = reply
                continue
            if reply.completions:
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
            refusal = read_refusal(200, err.said, self._client.clean)
            self._client.be_patient(refusal, tries, stop)
            return None

    def _follow(self, chunks: Iterable[bytes], answer: AnswerText) -> Reply:
        """Read a streamed answer; what came before it broke off is kept."""
        finish, tokens, read, silence = "", 0, 0, Silence()
        try:
            for event in read_events(chunks, self.name):
                tokens = spent(event, "completion_tokens") or tokens
                read = spent(event, "prompt_tokens") or read
                answer.thought = answer.thought or has_thought(event)
                choices = event.get("choices")
                for choice in choices[:1] if isinstance(choices, list) else []:
                    whole = isinstance(choice, dict) and "message" in choice
                    where = "message" if whole else "delta"
                    ended = feed_choice(answer, choice, where)
                    silence.hear(choice, where)
                    finish = finish or ended
                if answer.stopped:
                    break
        except BackendError:
            if not answer.text:
                raise
            finish = "cut"
        thinks = answer.thinks or answer.thought
        text = answer.finish()
        if not text:
            return Reply(
                (), 1, read, tokens, thinks=thinks, ended=thinks and finish == "stop",
                silence=silence,
            )  # fmt: skip
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
        errors = _errors(replies)
        error = errors[0] if errors else None
        if isinstance(error, Refused):
            raise self._refused(error) from error
        raise error or self._nothing(replies)

    def _nothing(self, replies: Sequence[Reply]) -> BackendError:
        """Say why there is no text in any reply, as far as one of them tells."""
        heard = [reply.silence for reply in replies]
        if refusal := next((s.refusal for s in heard if s.refusal.strip()), ""):
            return BackendError(
                f"{self.name} refused to answer: got {self._client.clean(refusal)!r}; expected an "
                "answer. Rephrase the query, or use another model."
            )
        if filtered := next((s.filtered for s in heard if s.filtered), ""):
            return BackendError(
                f"{self.name} wrote nothing, for a filter of its host: got finish_reason "
                f"{self._client.clean(filtered)!r}; expected text. Rephrase the query, show fewer "
                "records, or use another model."
            )
        if any(s.tools for s in heard):
            return BackendError(
                f"{self.name} called a tool: got no text beside it; expected an answer. Switch "
                "the model's tools off where it runs, or use another model."
            )
        if any(reply.thinks for reply in replies):
            return self._thoughts_only(ended=all(r.ended for r in replies if r.thinks))
        return BackendError(
            f"{self.name} wrote nothing: got {len(replies)} empty replies; expected text. Raise "
            "max_tokens, or rephrase the query."
        )

    def _thoughts_only(self, *, ended: bool = False) -> BackendError:
        """Say that a model thinks; ``ended``: it did not do so for want of room."""
        room = (
            "It ended by itself: more room would not help."
            if ended
            else "Else leave room for both: --max-tokens, or max_tokens in the task's file, which "
            "a fit goes by, too."
        )
        return BackendError(
            f"{self.name} thinks aloud: got thoughts only; expected an answer. Turn the model's "
            "reasoning off, or use another model; many servers heed `hydra-edge config set "
            f"reasoning_effort none`, or low. {room}"
        )

    def _refused(self, refusal: Refused) -> HydraError:
        if refusal.too_long:
            return ContextLengthError(
                f"Prompt does not fit {self.name}: {refusal.message}. Shorten the query, show "
                "fewer records, or ask for a shorter answer."
            )
        if refusal.out_of_room:
            return self._thoughts_only()
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
