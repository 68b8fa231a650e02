"""How long one waits for an API, and until when; the rest is in ``test_llm_openai_*``."""

import sys
import threading
from datetime import UTC, datetime

import pytest
from llm_server import Server, error

from hydra_edge.errors import ConfigError
from hydra_edge.llm.exchange import LOOK_S, GivenUp, pause
from hydra_edge.llm.http import ApiClient, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0), ("0.5", 0.5), ("-3", 0.0), ("999999", 999999.0), ("nan", None), ("inf", None),
        ("soon", None), ("", None), (None, None), ("Wed, 21 Oct 2026 07:28:10 GMT", 10.0),
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


@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:1080", "ImportError"),
        ("HTTPS_PROXY", "ftp://me:secret@127.0.0.1:1080", "ValueError"),
        ("https_proxy", "http://me:secret@[::1:8080", "InvalidURL"),
        ("HTTP_PROXY", "http://secret:port", "InvalidURL"),
        ("SSL_CERT_FILE", "/nowhere/secret.pem", "FileNotFoundError"),
    ],
)
def test_environment_that_allows_no_connection_is_told_without_its_values(
    monkeypatch, variable, value, kind
):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    if kind == "ImportError":
        monkeypatch.setitem(sys.modules, "socksio", None)  # whether it is there or not
    with pytest.raises(ConfigError) as caught:
        ApiClient("https://api.example.org/v1")
    said = str(caught.value)
    assert f"got {variable} ({kind}); expected" in said
    assert "secret" not in said
    assert ("socksio" in said) is (kind == "ImportError")
    ApiClient("http://127.0.0.1:9/v1").close()  # takes nothing of the environment


def test_giving_up_ends_the_retries():
    given_up = threading.Event()
    with Server() as server:
        server.otherwise = error(503)
        client = ApiClient(server.url, sleep=lambda *_: given_up.set())
        with pytest.raises(GivenUp):
            client.post("chat/completions", b"{}", give_up=given_up.is_set)
        assert len(server.seen) == 1
        client.close()
