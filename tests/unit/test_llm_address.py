"""Addresses of APIs, and which of them are this machine."""

import pytest

from hydra_edge.errors import ConfigError
from hydra_edge.llm.address import is_loopback, split_base_url


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True), ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True),
        ("0.0.0.0", False), ("127.1", False), ("localhost.example", False), ("10.0.0.1", False),
        ("127.0.0.1.example", False), ("2130706433", False), ("", False),
    ],
)  # fmt: skip
def test_only_certain_loopback_is_local(host, local):
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "ftp://h/v1",
        "http://",
        "http://h:x/v1",
        "http://h/v1?key=1",
        "http://[::",
    ],
)
def test_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="expected http"):
        split_base_url(url)
