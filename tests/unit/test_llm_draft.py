"""One answer being written, on a vocabulary of a dozen tokens."""

import numpy as np
import pytest

from hydra_edge.llm.draft import Draft
from hydra_edge.llm.sampling import generator
from hydra_edge.llm.text import AnswerText

PIECES = [
    b"",
    b"\n",
    b" ",
    b"\n\n",
    b" a",
    b"b",
    "字".encode()[:1],
    "字".encode()[1:],
    b" \nx",
    b" c",
]
END, NEWLINE, BLANK, NEWLINES, A, B, HALF, REST, SNEAKY, C = range(10)


class FewTokens:
    def piece(self, token):
        return PIECES[token]

    def is_end(self, token):
        return token == END


def preferring(*tokens):
    """Logits whose order of preference is this; others come last, by number."""
    order = [*tokens, *(t for t in range(len(PIECES)) if t not in tokens)]
    logits = np.empty(len(PIECES), dtype=np.float32)
    logits[order] = np.linspace(8, -8, len(order))
    return logits


def write(*steps, max_tokens=8, stop=("\n",), rng=None):
    draft = Draft(
        FewTokens(), rng=rng, temperature=1.0, max_tokens=max_tokens, answer=AnswerText(stop)
    )
    for logits in steps:
        if not draft.finish:
            draft.advance(logits)
    return draft


@pytest.mark.parametrize("empty", [END, NEWLINE, NEWLINES, SNEAKY])
@pytest.mark.parametrize("rng", [None, generator(3)])
def test_draft_whose_model_would_say_nothing_says_something(empty, rng):
    draft = write(preferring(empty), preferring(END), rng=rng)
    assert draft.tokens[0] not in {END, NEWLINE, NEWLINES, SNEAKY}
    if rng is None:
        assert draft.completion().text == "a"


def test_draft_may_begin_with_one_blank_only():
    draft = write(preferring(BLANK), preferring(BLANK, END, B), preferring(END))
    assert draft.tokens == [BLANK, B]
    assert draft.completion().text == "b"


def test_draft_that_thinks_aloud_may_break_lines(monkeypatch):
    pieces = [{B: b"<think>", C: b"</think>"}.get(i, piece) for i, piece in enumerate(PIECES)]
    monkeypatch.setitem(globals(), "PIECES", pieces)
    steps = [(B,), (NEWLINE,), (A,), (C,), (NEWLINE, A), (END,)]
    draft = write(*(preferring(*step) for step in steps))
    assert draft.tokens == [B, NEWLINE, A, C, A]
    assert draft.completion().text == "a"


def test_draft_of_one_token_does_not_spend_it_on_a_blank():
    assert write(preferring(BLANK, A), max_tokens=1).completion().text == "a"


@pytest.mark.parametrize(
    ("last", "finish"), [(END, "stop"), (NEWLINE, "stop"), (SNEAKY, "stop"), (C, "length")]
)
def test_draft_ends_at_stop_end_or_length(last, finish):
    draft = write(preferring(A), preferring(B), preferring(last), max_tokens=3)
    done = draft.completion()
    assert (done.text, done.finish) == ("ab c" if last == C else "ab", finish)


def test_draft_puts_characters_together_from_bytes():
    assert write(preferring(HALF), preferring(REST), preferring(END)).completion().text == "字"


def test_draft_that_ends_inside_a_character_leaves_it_out():
    assert write(preferring(A), preferring(HALF), max_tokens=2).completion().text == "a"


def test_draft_logprob_is_the_mean_over_tokens_at_temperature_one():
    first, second = preferring(A), preferring(C)
    done = write(first, second, max_tokens=2).completion()

    def log_softmax(logits, token):
        return float(logits[token] - np.log(np.exp(logits.astype(np.float64)).sum()))

    assert done.logprob == pytest.approx((log_softmax(first, A) + log_softmax(second, C)) / 2)
    assert (done.tokens, done.greedy) == (2, True)
