"""What the machine's environment says of hydra-edge reaches no test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hydra_edge.config import Config, find_paths, load_config
from hydra_edge.llm.keys import list_keys


@pytest.fixture(scope="module", autouse=True)
def _machine() -> Iterator[None]:
    """Be a machine with settings of its own, before any test has its home."""
    with pytest.MonkeyPatch.context() as machine:
        for name in ("HOME", "USER", "MODEL", "BUNDLE", "KEY_API_EXAMPLE"):
            machine.setenv(f"HYDRA_EDGE_{name}", "theirs")
        machine.setenv("HYDRA_EDGE_OFFLINE", "1")
        machine.setenv("HYDRA_EDGE_LOG", "false")
        machine.setenv("OPENAI_API_KEY", "theirs")
        yield


def test_home_settings_of_the_machine_reach_no_test(home: Path) -> None:
    assert load_config(find_paths()) == Config()
    assert list_keys(find_paths()) == {}
    assert find_paths().data == home
