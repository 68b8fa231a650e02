"""A local GGUF as an LLM: prompt evaluated once, candidates decoded together, answers in a trie.

Owns how a prompt becomes tokens and when an answer is over. The model and its cache are
``engine``'s, choosing among logits is ``sampling``'s. Sends nothing anywhere.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hydra_edge.errors import BackendError, ContextLengthError
from hydra_edge.llm.chat import ChatTemplate
from hydra_edge.llm.draft import Draft
from hydra_edge.llm.engine import Engine, Feed
from hydra_edge.llm.request import check_request
from hydra_edge.llm.sampling import draw, generator, log_total, probabilities
from hydra_edge.llm.text import AnswerText
from hydra_edge.llm.threads import choose_threads
from hydra_edge.llm.trie import Node, build_trie, forced
from hydra_edge.prompt import Prompt
from hydra_edge.types import Completion, Float1d

_SLOTS = 16  # candidates decoded at once; more take turns
_TINY = 1e-12  # keeps the logarithm of a vanishing probability finite


class LlamaCpp:
    """A GGUF run by llama-cpp-python on the CPU (extra ``local``).

    Same seed, same answers, as long as the same prompts came before: a prompt evaluated in
    other portions (because another one shared its beginning) may differ in the last bits.

    Parameters
    ----------
    path
        The GGUF file.
    name
        What candidates are cached under; default: the file's name and size.
    n_ctx
        Context window in tokens, at most what the model was trained for.
    threads
        0 leaves it to the machine (``threads.choose_threads``).
    chat
        False: few-shot completion text. True: the model's own chat template. None: the
        template if the model has one.

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
    ) -> None:
        self._lock = threading.Lock()
        self._engine = Engine(path, n_ctx=n_ctx, slots=_SLOTS, threads=choose_threads(threads))
        self._template: ChatTemplate | None = None
        try:
            source = None if chat is False else self._engine.template()
            if source is not None:
                self._template = ChatTemplate(source, model=path.name)
            elif chat:
                raise BackendError(
                    f"Model {path.name} has no chat template; chat=True needs one. Open it with "
                    "chat=False for few-shot completion."
                )
        except BackendError:
            self._engine.close()
            raise
        base = name or f"{path.stem}:{path.stat().st_size}"
        # The format is part of the name: answers to another form of prompt are other answers.
        self.name = f"{base}+chat" if self._template else base

    def __repr__(self) -> str:
        return f"LlamaCpp({self.name!r})"

    @property
    def n_ctx(self) -> int:
        """Context window in force, in tokens."""
        return self._engine.n_ctx

    def render(self, prompt: Prompt, *, max_tokens: int | None = None, seed: int = 0) -> str:
        """Return the text the model continues, byte for byte; the options are not part of it."""
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
    ) -> list[Completion]:
        """Sample ``n`` answers (see ``LLM.complete``).

        With ``choices``, every answer is a member: its tokens are drawn from those that lead
        to one, and ``logprob`` is that of the draws (nats a token of the answer, temperature
        1); without, it is the mean over the answer's tokens under the model.
        """
        members = check_request(
            n=n, temperature=temperature, max_tokens=max_tokens, choices=choices,
            on_token=on_token,
        )  # fmt: skip
        distinct = n if temperature > 0.0 else 1
        with self._lock:
            self._engine.check_open()
            tokens = self._tokens(prompt)
            if members is None:
                self._check_room(tokens, max_tokens)
                answers = self._write(
                    tokens, prompt.task.stop, distinct, temperature, max_tokens, seed, on_token
                )
            else:
                allowed = [(member, self._continuation(prompt, member)) for member in members]
                self._check_room(tokens, max(len(path) for _, path in allowed))
                answers = self._vote(tokens, build_trie(allowed), distinct, temperature, seed)
                if on_token is not None:
                    on_token(answers[0].text)
        answers = [answer for answer in answers if answer.text]
        if not answers:
            raise BackendError(
                f"{self.name} wrote nothing: got {distinct} empty answers; expected text. Raise "
                "max_tokens, or rephrase the query."
            )
        return answers * (n // distinct)

    def close(self) -> None:
        """Free the model; calling it twice is harmless."""
        with self._lock:
            self._engine.close()

    # ---- prompt to tokens

    def _tokens(self, prompt: Prompt) -> list[int]:
        engine = self._engine
        if self._template is None:
            tokens = engine.tokenize(prompt.completion_text())
        else:
            tokens = []
            for part in self._template.parts(prompt.messages()):
                tokens += engine.tokenize(part.text, special=part.trusted)
        if engine.add_bos and tokens[:1] != [engine.bos]:
            tokens.insert(0, engine.bos)
        return tokens

    def _check_room(self, tokens: list[int], max_tokens: int) -> None:
        room = self._engine.n_ctx - max_tokens
        if len(tokens) > room:
            raise ContextLengthError(
                f"Prompt does not fit {self.name}: got {len(tokens)} tokens; expected at most "
                f"{room} ({self._engine.n_ctx} less {max_tokens} for the answer). Show fewer or "
                "shorter records, or ask for a shorter answer."
            )

    def _continuation(self, prompt: Prompt, choice: str) -> list[int]:
        """Tokens of an allowed answer as it follows the prompt's last line."""
        if self._template is not None:
            return self._engine.tokenize(choice)
        # Tokenized with what stands before it, for a token may reach over the blank.
        lead = f"{prompt.task.output_label}:"
        before, both = self._engine.tokenize(lead), self._engine.tokenize(f"{lead} {choice}")
        if both[: len(before)] == before:
            return both[len(before) :]
        return self._engine.tokenize(f" {choice}")

    # ---- free answers

    def _write(
        self,
        tokens: list[int],
        stop: Sequence[str],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_token: Callable[[str], None] | None,
    ) -> list[Completion]:
        """Decode all drafts in one batch a step; the finished make room for the waiting."""
        engine = self._engine
        drafts = [
            Draft(
                engine,
                rng=generator(seed + i) if i else None,
                temperature=temperature,
                max_tokens=max_tokens,
                answer=AnswerText(stop, on_token),
            )
            for i in range(n)
        ]
        first = engine.prompt(tokens)
        at = len(tokens)
        # The prompt's cells are shared; each draft may need max_tokens of its own.
        together = max(1, min(engine.slots, (engine.n_ctx - at) // max_tokens))
        free, waiting = deque(range(1, together + 1)), deque(drafts)
        live: dict[int, Draft] = {}
        try:
            while waiting or live:
                while waiting and free:
                    draft = waiting.popleft()
                    draft.advance(first)
                    if not draft.finish:
                        slot = free.popleft()
                        live[slot] = draft
                        engine.fork(slot)
                if not live:
                    continue
                rows = [Feed(d.tokens[-1], at + len(d.tokens) - 1, s) for s, d in live.items()]
                logits = engine.decode(rows)
                for row, (slot, draft) in zip(logits, list(live.items()), strict=True):
                    draft.advance(row)
                    if draft.finish:
                        del live[slot]
                        engine.drop(slot)
                        free.append(slot)
        finally:
            for slot in live:
                engine.drop(slot)
        return [draft.completion() for draft in drafts]

    # ---- answers from a closed set

    def _vote(
        self, tokens: list[int], trie: Node, n: int, temperature: float, seed: int
    ) -> list[Completion]:
        """Walk the trie once a candidate; a node's logits are computed once for all."""
        first = self._engine.prompt(tokens)
        generators = [generator(seed + i) if i else None for i in range(n)]
        logprob = [0.0] * n
        place = [forced(trie)] * n
        while open_nodes := {node.path: node for node in place if node.children}:
            paths = [path for path in open_nodes if path]
            seen = dict(zip(paths, self._engine.branches(paths), strict=True)) if paths else {}
            for i, node in enumerate(place):
                if node.children:
                    ways, scores = self._ways(node, seen.get(node.path, first))
                    pick = draw(scores, temperature, generators[i])
                    logprob[i] += float(np.log(probabilities(scores, 1.0)[pick] + _TINY))
                    place[i] = ways[pick]
        return [
            Completion(
                str(node.choice),
                greedy=rng is None,
                tokens=len(node.path),
                logprob=total / max(1, len(node.path)),
            )
            for node, rng, total in zip(place, generators, logprob, strict=True)
        ]

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
        engine = self._engine
        ends = {engine.tokenize(text)[0] for text in ("\n", "\n\n")}
        return sorted(ends | {token for token in (engine.eos, engine.eot) if token >= 0})
