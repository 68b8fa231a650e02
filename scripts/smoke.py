"""Build the wheel, install it alone into a clean environment, and use it.

Proves that the declared dependencies are complete, that the base is inside the wheel, and
that nothing heavy comes along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("torch", "transformers", "openai", "llama_cpp", "scipy", "sklearn", "onnx")
BUNDLE_LIMIT = 25_000_000


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a command, return its output; stop with all it printed if it fails."""
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, env=env, check=False
    )
    if result.returncode:
        sys.exit(f"failed: {command}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", work, ROOT)
        (wheel,) = work.glob("hydra_edge-*.whl")
        print(f"wheel: {wheel.stat().st_size / 1e6:.1f} MB")
        venv.create(work / "venv", with_pip=True)
        python = work / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel)
        present = json.loads(
            run(
                python,
                "-c",
                (
                    "import importlib.util, json;"
                    f"print(json.dumps([m for m in {FORBIDDEN!r} if importlib.util.find_spec(m)]))"
                ),
            )
        )
        if present:
            sys.exit(f"a plain install brings {present}")
        site = work / "venv" / "lib"
        size = sum(f.stat().st_size for f in site.rglob("*") if f.is_file())
        base = next(site.rglob("hydra_edge/bundles/default"))
        bundle = sum(f.stat().st_size for f in base.iterdir())
        print(
            f"installed: {size / 1e6:.0f} MB with dependencies and pip; base {bundle / 1e6:.1f} MB"
        )
        if bundle > BUNDLE_LIMIT:
            sys.exit(f"the base has {bundle} bytes, more than {BUNDLE_LIMIT}")
        env = {"HYDRA_EDGE_HOME": str(work / "home"), "PATH": os.environ["PATH"]}
        command = work / "venv" / "bin" / "hydra-edge"
        print(run(command, "--version", env=env).strip())
        sample = ROOT / "examples" / "papers" / "author-b.jsonl"
        run(command, "import", "jsonl", sample, "--user", "me", "--task", "paper_title", env=env)
        report = json.loads(run(command, "fit-head", "--user", "me", "--json", env=env))
        print(f"fit-head: {json.dumps(report)[:200]} ...")
        ranked = json.loads(
            run(command, "rank", "parsing sentences", "--user", "me", "--json", env=env)
        )
        titles = [record["output"] for record in ranked["records"]]
        print(f"rank: {titles}")
        if len(titles) != 4:
            sys.exit(f"expected four records, got {ranked}")
        run(command, "doctor", env=env)
    print("smoke test passed")


if __name__ == "__main__":
    main()
