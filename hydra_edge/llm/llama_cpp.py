"""A local GGUF as an LLM: prompt evaluated once, candidates decoded together, answers in a trie.

Owns how a prompt becomes tokens and when an answer is over. The model and its cache are
``gguf``'s, choosing among logits is ``sampling``'s. Sends nothing anywhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.chat import WITHOUT, ChatTemplate
from hydra_edge.llm.draft import Draft
from hydra_edge.llm.firstline import chat_answer
from hydra_edge.llm.gguf import Feed, Gguf
from hydra_edge.llm.request import check_request, repeated
from hydra_edge.llm.sampling import draw, generator, log_total, probabilities
from hydra_edge.llm.text import AnswerText
from hydra_edge.llm.thoughts import marks_beside
from hydra_edge.llm.threads import Threads
from hydra_edge.llm.trie import Node, build_trie, forced
from hydra_edge.prompt import Prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion, Float1d

_SLOTS = 16  # candidates decoded at once; more take turns
_TINY = 1e-12  # keeps the logarithm of a vanishing probability finite


class _Stopped(Exception):
    """Told to stop: what is finished is the result."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """Which answers are wanted of a prompt.

    ``tell`` takes each once finished, with its place and the size of the prompt in tokens.
    """

    n: int
    temperature: float
    max_tokens: int
    seed: int
    tell: Callable[[int, Completion, int], None]
    check: Callable[[], None]  # raises _Stopped once told to stop


@dataclass(slots=True)
class _Walk:
    """One candidate on its way through the trie."""

    node: Node
    rng: np.random.Generator | None
    logprob: float = 0.0

    def completion(self) -> Completion:
        """Return the answer at which the way ended."""
        size = len(self.node.path)
        return Completion(
            str(self.node.choice),
            greedy=self.rng is None,
            tokens=size,
            logprob=self.logprob / max(1, size),
        )


class LlamaCpp:
    """A GGUF run by llama-cpp-python on the CPU (extra ``local``).

    Same seed, same answers, whatever was asked before. An interrupt (Ctrl-C) passes through
    and leaves the model fit for the next call.

    Parameters
    ----------
    path
        The GGUF file.
    name
        What candidates are cached under; default: the file's name and size.
    n_ctx
        Context window in tokens, at most what the model was trained for.
    threads
        0 leaves it to the machine and its load, looked at before every answer.
    chat
        False: few-shot completion text. True: the model's own chat template. None: the
        template if the model has one.
    states
        Folder where the states of built-in tasks' instructions are kept for the next process;
        None keeps none. What an application or a user wrote is never kept there.

    Raises
    ------
    BackendError
        If llama-cpp-python is missing, or the file is not a model it can load.
    """

    is_remote = False

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        n_ctx: int = 2048,
        threads: int = 0,
        chat: bool | None = False,
        states: Path | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._threads = Threads(threads)
        self._gguf = Gguf(
            path, n_ctx=n_ctx, slots=_SLOTS, threads=self._threads.now(), states=states
        )
        self._template: ChatTemplate | None = None
        try:
            source = None if chat is False else self._gguf.template()
            if source is not None:
                self._template = ChatTemplate(source, model=path.name)
            elif chat:
                raise BackendError(
                    f"Model {path.name} has no chat template; expected one to prompt it by. "
                    f"{WITHOUT} It is then prompted by examples."
                )
        except BackendError:
            self._gguf.close()
            raise
        base = name or f"{path.stem}:{path.stat().st_size}"
        # The format is part of the name: answers to another form of prompt are other answers.
        self.name = f"{base}+chat" if self._template else base

    def __repr__(self) -> str:
        return f"LlamaCpp({self.name!r})"

    @property
    def without_tiles(self) -> bool:
        """Whether the library would crash on this processor's AMX, and goes without it."""
        return self._gguf.without_tiles

    @property
    def n_ctx(self) -> int:
        """Context window in force, in tokens."""
        return self._gguf.n_ctx

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """Return the text the model continues, byte for byte; the options are not part of it.

        Raises
        ------
        ContextLengthError
            If an answer of ``max_tokens``, or the longest of a closed set, does not fit behind it.
        """
        if max_tokens is not None:
            length = max_tokens if prompt.task.kind == "text" else self._longest(prompt)
            self._check_room(self._tokens(prompt), length)
        if self._template is None:
            return prompt.completion_text()
        return "".join(part.text for part in self._template.parts(prompt.messages()))

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
        """Sample ``n`` answers (see ``LLM.complete``).

        With ``choices``, every answer is a member: its tokens are drawn from those that lead
        to one, and ``logprob`` is that of the draws (nats a token of the answer, temperature
        1); without, it is the mean over the answer's tokens under the model. The answer that is
        finished first carries the tokens of the rendered prompt, those reused from an earlier
        one included, as an API bills them.
        """
        members = check_request(
            n=n, temperature=temperature, max_tokens=max_tokens, choices=choices,
            on_token=on_token,
        )  # fmt: skip
        distinct = n if temperature > 0.0 else 1
        finished: dict[int, Completion] = {}

        def tell(place: int, answer: Completion, read: int) -> None:
            if answer.text:
                finished[place] = answer if finished else replace(answer, prompt_tokens=read)
                if on_candidate is not None:
                    for copy in repeated(finished[place], n // distinct):
                        on_candidate(copy)

        def check() -> None:
            if should_stop is not None and should_stop():
                raise _Stopped

        ask = _Ask(distinct, temperature, max_tokens, seed, tell, check)
        stopped = False
        with self._lock:
            self._gguf.check_open()
            self._gguf.use_threads(self._threads.now())
            try:
                check()
                if members is None:
                    self._write(prompt, ask, on_token)
                else:
                    self._vote(prompt, ask, members)
                    if on_token is not None:
                        on_token(finished[0].text)
            except _Stopped:
                stopped = True
        if not finished and not stopped:
            raise BackendError(
                f"{self.name} wrote nothing: got {distinct} empty answers; expected text. Raise "
                "max_tokens, or rephrase the query."
            )
        answers = [finished[place] for place in sorted(finished)]
        return answers if distinct == n or not answers else repeated(answers[0], n)

    def close(self) -> None:
        """Free the model; calling it twice is harmless."""
        with self._lock:
            self._gguf.close()

    # ---- prompt to tokens

    def _tokens(self, prompt: Prompt) -> list[int]:
        gguf = self._gguf
        if self._template is None:
            tokens = gguf.tokenize(prompt.completion_text())
        else:
            tokens = []
            for part in self._template.parts(prompt.messages()):
                tokens += gguf.tokenize(part.text, special=part.trusted)
        if gguf.add_bos and tokens[:1] != [gguf.bos]:
            tokens.insert(0, gguf.bos)
        return tokens

    def _shared(self, prompt: Prompt, tokens: list[int]) -> int:
        """Count the first tokens that every prompt of a built-in task begins with."""
        task = BUILTIN.get(prompt.task.name)
        if self._template is not None or task is None or prompt.head != Prompt(task, "").head:
            return 0
        head = self._gguf.tokenize(prompt.head)
        if self._gguf.add_bos and head[:1] != [self._gguf.bos]:
            head.insert(0, self._gguf.bos)
        # The last tokens of the head may have merged with what follows.
        same = [a == b for a, b in zip(head, tokens, strict=False)]
        return same.index(False) if False in same else len(same)

    def _begin(self, prompt: Prompt, tokens: list[int], ask: _Ask) -> Float1d:
        """Evaluate the prompt; return the logits of what comes after it."""
        return self._gguf.prompt(tokens, shared=self._shared(prompt, tokens), between=ask.check)

    def _check_room(self, tokens: list[int], max_tokens: int) -> None:
        room = self._gguf.n_ctx - max_tokens
        if room <= 0:
            raise ContextLengthError(
                f"An answer of {max_tokens} tokens does not fit {self.name}: got a context of "
                f"{self._gguf.n_ctx}; expected room for a prompt, too. Ask for a shorter answer."
            )
        if len(tokens) > room:
            raise ContextLengthError(
                f"Prompt does not fit {self.name}: got {len(tokens)} tokens; expected at most "
                f"{room} ({self._gguf.n_ctx} less {max_tokens} for the answer). Shorten the "
                "query, show fewer records, or ask for a shorter answer."
            )

    def _continuation(self, prompt: Prompt, choice: str) -> list[int]:
        """Tokens of an allowed answer as it follows the prompt's last line."""
        if self._template is not None:
            return self._gguf.tokenize(choice)
        # Tokenized with what stands before it, for a token may reach over the blank.
        lead = f"{prompt.task.output_label}:"
        before, both = self._gguf.tokenize(lead), self._gguf.tokenize(f"{lead} {choice}")
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._gguf.tokenize(f" {choice}")

    def _longest(self, prompt: Prompt) -> int:
        """Return how many tokens the longest answer of a closed set takes."""
        members = filter(str.strip, prompt.task.labels)
        return max((len(self._continuation(prompt, member)) for member in members), default=0)

    # ---- free answers

    def _answer(self, prompt: Prompt, on_token: Callable[[str], None] | None) -> AnswerText:
        # Small models that chat may go on with our next block; only an API is not told of stops.
        if self._template is not None and not prompt.task.multiline:
            return chat_answer(prompt, on_token)
        return AnswerText(prompt.task.stop, on_token, marks=marks_beside(prompt.examples))

    def _write(self, prompt: Prompt, ask: _Ask, on_token: Callable[[str], None] | None) -> None:
        """Decode all drafts in one batch a step; the finished make room for the waiting."""
        gguf = self._gguf
        tokens = self._tokens(prompt)
        self._check_room(tokens, ask.max_tokens)
        scratch = np.empty(gguf.n_vocab, dtype=np.float32)
        drafts = [
            Draft(
                gguf,
                rng=generator(ask.seed + i) if i else None,
                temperature=ask.temperature,
                max_tokens=ask.max_tokens,
                answer=self._answer(prompt, on_token),
                scratch=scratch,
            )
            for i in range(ask.n)
        ]
        first = self._begin(prompt, tokens, ask)
        at = len(tokens)
        # The prompt's cells are shared; each draft may need max_tokens of its own.
        together = max(1, min(gguf.slots, (gguf.n_ctx - at) // ask.max_tokens))
        free, waiting = deque(range(1, together + 1)), deque(enumerate(drafts))
        live: dict[int, tuple[int, Draft]] = {}
        try:
            while waiting or live:
                while waiting and free:
                    place, draft = waiting.popleft()
                    draft.advance(first)
                    if draft.finish:
                        ask.tell(place, draft.completion(), at)
                    else:
                        slot = free.popleft()
                        live[slot] = place, draft
                        gguf.fork(slot)
                if not live:
                    continue
                ask.check()
                rows = [Feed(d.tokens[-1], at + len(d.tokens) - 1, s) for s, (_, d) in live.items()]
                logits = gguf.decode(rows)
                for row, (slot, (place, draft)) in zip(logits, list(live.items()), strict=True):
                    draft.advance(row)
                    if draft.finish:
                        del live[slot]
                        gguf.drop(slot)
                        free.append(slot)
                        ask.tell(place, draft.completion(), at)
        finally:
            gguf.release()

    # ---- answers from a closed set

    def _vote(self, prompt: Prompt, ask: _Ask, members: Sequence[str]) -> None:
        """Walk the trie once a candidate; a node's logits are computed once for all."""
        tokens = self._tokens(prompt)
        allowed = [(member, self._continuation(prompt, member)) for member in members]
        self._check_room(tokens, max(len(path) for _, path in allowed))
        first = self._begin(prompt, tokens, ask)
        root = forced(build_trie(allowed))
        walks = [_Walk(root, generator(ask.seed + i) if i else None) for i in range(ask.n)]
        going = dict(enumerate(walks))
        while going:
            for place, walk in list(going.items()):
                if not walk.node.children:
                    del going[place]
                    ask.tell(place, walk.completion(), len(tokens))
            paths = [p for p in dict.fromkeys(w.node.path for w in going.values()) if p]
            if paths:
                ask.check()
            seen = dict(zip(paths, self._gguf.branches(paths), strict=True)) if paths else {}
            for walk in going.values():
                ways, scores = self._ways(walk.node, seen.get(walk.node.path, first))
                pick = draw(scores, ask.temperature, walk.rng)
                walk.logprob += float(np.log(probabilities(scores, 1.0)[pick] + _TINY))
                walk.node = ways[pick]

    def _ways(self, node: Node, logits: Float1d) -> tuple[list[Node], Float1d]:
        """Return the places a walk may go on to from a node, and the logit of each."""
        ways = [forced(child) for child in node.children.values()]
        scores = logits[list(node.children)]
        if node.choice is not None:
            ways.append(Node(node.path, choice=node.choice))
            scores = np.append(scores, np.float32(log_total(logits[self._end_tokens()])))
        return ways, scores

    def _end_tokens(self) -> list[int]:
        """Tokens with which an answer of one line ends."""
        gguf = self._gguf
        ends = {gguf.tokenize(text)[0] for text in ("\n", "\n\n")}
        return sorted(ends | {token for token in (gguf.eos, gguf.eot) if token >= 0})
