"""What the scripts that try the built wheel share: run a command, build the wheel, use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "examples" / "papers" / "author-b.jsonl"


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command, return its output; stop with all it printed if it fails."""
    words = [str(part) for part in command]
    result = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, check=False)
    if result.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def build_wheel(work: Path) -> Path:
    """Build the wheel alone in a folder; return its file."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", work, ROOT)
    (wheel,) = work.glob("hydra_edge-*.whl")
    return wheel


def use(command: Path, env: dict[str, str], cwd: Path | None = None) -> None:
    """Ask for the version, import a sample, and rank its records."""
    version = run(command, "--version", env=env, cwd=cwd).strip()
    sample = ("jsonl", SAMPLE, "--user", "me", "--task", "paper_title")
    run(command, "import", *sample, env=env, cwd=cwd)
    ranked = json.loads(run(command, "rank", "parsing sentences", "--json", env=env, cwd=cwd))
    titles = [record["output"] for record in ranked["records"]]
    if len(titles) != 4:
        sys.exit(f"{command}: expected four records, got {ranked}")
    print(f"  {version}; rank begins with {titles[0]!r}", flush=True)
