"""Where an API is: an address that can be asked, and whether it is this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from hydra_edge.errors import ConfigError


def split_base_url(base_url: str) -> SplitResult:
    """Check the address of an API.

    Raises
    ------
    ConfigError
        If it is not a plain http(s) address.
    """
    try:
        parts = urlsplit(base_url.strip())
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_ok = urlsplit(""), False
    if parts.username or parts.password:
        # Not repeated in the message: it holds a secret.
        raise ConfigError(
            "base_url carries a user name or password; expected a plain address. Store the key "
            "with `hydra-edge keys set HOST` instead."
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok or parts.query:
        raise ConfigError(
            f"base_url = {base_url!r} cannot be used; expected http(s)://host[:port]/path, such "
            "as http://127.0.0.1:11434/v1. Correct it where it was set: by `hydra-edge config set "
            "base_url`, HYDRA_EDGE_BASE_URL or --base-url."
        )
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine for certain; any doubt means it is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
