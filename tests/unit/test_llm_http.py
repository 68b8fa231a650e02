"""How long one waits for an API, and until when; the rest is in ``test_llm_openai_*``."""

import threading
from datetime import UTC, datetime

import pytest
from llm_server import Server, error

from hydra_edge.llm.exchange import LOOK_S, GivenUp, pause
from hydra_edge.llm.http import ApiClient, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("999999", 30.0), ("nan", None), ("soon", None),
        ("", None), (None, None), ("Wed, 21 Oct 2026 07:28:10 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("Mon, 99999999999 Jan 2020 00:00:00 GMT", None),
        ("Mon, 01 Jan 2020 00:00:00 +99999999999999", None),
    ],
)  # fmt: skip
def test_retry_after_reads_seconds_and_dates(value, seconds):
    assert retry_after(value, now=datetime(2026, 10, 21, 7, 28, tzinfo=UTC)) == seconds


def test_pause_ends_when_told_and_else_takes_what_it_was_given():
    slept = []
    pause(1.03, lambda: False, slept.append)
    assert sum(slept) == pytest.approx(1.03)
    assert max(slept) <= LOOK_S
    slept.clear()
    pause(30.0, lambda: len(slept) >= 2, slept.append)
    assert len(slept) == 2


def test_giving_up_ends_the_retries():
    given_up = threading.Event()
    with Server() as server:
        server.otherwise = error(503)
        client = ApiClient(server.url, sleep=lambda *_: given_up.set())
        with pytest.raises(GivenUp):
            client.post("chat/completions", b"{}", give_up=given_up.is_set)
        assert len(server.seen) == 1
        client.close()
