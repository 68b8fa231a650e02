"""Install the built wheel as an application, by pipx and by `uv tool`, and use it.

Proves what docs/packaging.md says: one command puts `hydra-edge` on a path of its own, and what
it puts there imports and ranks. Nothing outside a temporary folder is touched: both tools come
from PyPI into a virtual environment there, and HOME is an empty folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "papers" / "author-b.jsonl"


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command, return its output; stop with all it printed if it fails."""
    words = [str(part) for part in command]
    result = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    if result.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def use(command: Path, env: dict[str, str]) -> None:
    """Ask for the version, import a sample, and rank its records."""
    version = run(command, "--version", env=env).strip()
    run(command, "import", "jsonl", SAMPLE, "--user", "me", "--task", "paper_title", env=env)
    ranked = json.loads(run(command, "rank", "parsing sentences", "--json", env=env))
    titles = [record["output"] for record in ranked["records"]]
    if len(titles) != 4:
        sys.exit(f"{command}: expected four records, got {ranked}")
    print(f"  {version}; rank begins with {titles[0]!r}")


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
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", work, ROOT)
        (wheel,) = work.glob("hydra_edge-*.whl")
        venv.create(work / "tools", with_pip=True)
        tools = work / "tools" / "bin"
        run(tools / "python", "-m", "pip", "install", "--quiet", "pipx", "uv")
        check("pipx", [tools / "pipx"], wheel, work / "home-pipx")
        check("uv tool", [tools / "uv", "tool"], wheel, work / "home-uv")
    print("install check passed")


if __name__ == "__main__":
    main()
