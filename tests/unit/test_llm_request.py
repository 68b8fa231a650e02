"""What every backend refuses, and makes of what it is asked."""

import pytest

from hydra_edge.errors import ConfigError
from hydra_edge.llm.request import check_request, read_in_part, without_system
from hydra_edge.prompt import build_prompt
from hydra_edge.tasks import BUILTIN
from hydra_edge.types import Completion

GOOD = {"n": 1, "temperature": 0.8, "max_tokens": 8, "choices": None, "on_token": None}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n": 0}, "got 0; expected 1"),
        ({"temperature": -0.1}, "expected a number from 0"),
        ({"temperature": float("nan")}, "got nan"),
        ({"max_tokens": 0}, "got 0 tokens"),
        ({"n": 2, "on_token": print}, "got n = 2"),
        ({"choices": []}, "at least one"),
        ({"choices": [" ", ""]}, "at least one"),
    ],
)
def test_check_request_out_of_range_says_what_is_expected(change, match):
    with pytest.raises(ConfigError, match=match):
        check_request(**GOOD | change)


def test_check_request_drops_repeated_and_blank_choices():
    assert check_request(**GOOD | {"choices": ["b", "a", "b", " "]}) == ("b", "a")


def test_system_text_is_put_before_the_users_first():
    system, user = {"role": "system", "content": "Be short."}, {"role": "user", "content": "Hm?"}
    assert without_system([system, user]) == [{"role": "user", "content": "Be short.\n\nHm?"}]
    assert without_system([user]) == [user]
    assert without_system([system]) == [system]


@pytest.mark.parametrize(
    ("name", "read", "in_part"),
    [
        ("openai:m@127.0.0.1:11434", [90, 0], 90),
        ("openai:m@127.0.0.1:11434", [90, 400], 0),  # the first had less to read
        ("openai:m@127.0.0.1:11434", [0, 0], 0),  # it does not say
        ("openai:m@127.0.0.1:11434", [400, 0], 0),
        ("smollm2", [90, 0], 0),  # the rest was read before
    ],
)
def test_prompt_of_which_fewer_tokens_than_words_were_read_was_not_read_whole(name, read, in_part):
    prompt = build_prompt(BUILTIN["email_reply"], "word " * 300, [])
    answers = [Completion("Yes.", prompt_tokens=tokens) for tokens in read]
    answers.append(Completion("No.", prompt_tokens=9999, zero_shot=True))
    assert read_in_part(name, prompt, answers) == in_part
