"""What every backend refuses, and makes of what it is asked."""

import pytest

from hydra_edge.errors import ConfigError
from hydra_edge.llm.request import check_request, without_system

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
