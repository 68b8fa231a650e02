"""Install the built wheel as an application, by pipx and by `uv tool`, and use it.

Proves what docs/packaging.md says: one command puts `hydra-edge` on a path of its own, and what
it puts there imports and ranks. Nothing outside a temporary folder is touched: both tools come
from PyPI into a virtual environment there, and HOME is an empty folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import venv
from pathlib import Path

from _wheel import build_wheel, run, use


def check(name: str, tool: list[Path | str], wheel: Path, home: Path) -> None:
    """Install into an empty home, use what is there, and see that it can be removed."""
    home.mkdir()
    bin_dir = home / "bin"
    # How this machine reaches a package index is its own affair; where things go is ours.
    env = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "UV_", "SSL_"))} | {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "PIPX_HOME": str(home / "pipx"),
        "PIPX_BIN_DIR": str(bin_dir),
        "UV_TOOL_DIR": str(home / "uv"),
        "UV_TOOL_BIN_DIR": str(bin_dir),
        "UV_CACHE_DIR": str(home / "uv-cache"),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
    }
    started = time.monotonic()
    run(*tool, "install", wheel, env=env)
    print(f"{name}: installed in {time.monotonic() - started:.0f} s")
    command = bin_dir / "hydra-edge"
    use(command, {"HOME": str(home), "PATH": os.defpath})
    run(*tool, "uninstall", "hydra-edge", env=env)
    if command.exists():
        sys.exit(f"{name}: uninstall left {command}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel = build_wheel(work)
        venv.create(work / "tools", with_pip=True)
        tools = work / "tools" / "bin"
        run(tools / "python", "-m", "pip", "install", "--quiet", "pipx", "uv")
        check("pipx", [tools / "pipx"], wheel, work / "home-pipx")
        check("uv tool", [tools / "uv", "tool"], wheel, work / "home-uv")
    print("install check passed")


if __name__ == "__main__":
    main()
