"""Where things are kept, on systems that say so and on those that do not."""

from __future__ import annotations

import os

import pytest

from hydra_edge.errors import ConfigError
from hydra_edge.paths import find_paths


@pytest.mark.skipif(os.name != "posix", reason="other systems ask elsewhere")
def test_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_uid: int) -> None:
        raise KeyError("uid not found")

    for name in [name for name in os.environ if name.startswith("XDG_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "HYDRA_EDGE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match=r"no home folder.*Set HYDRA_EDGE_HOME"):
        find_paths()
