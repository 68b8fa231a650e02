"""Build the wheel, install it alone into a clean environment, and use it.

Proves that the declared dependencies are complete, that the base is inside the wheel, and
that nothing heavy comes along.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import venv
from pathlib import Path

from _wheel import build_wheel, run, use

from export.pack import MAX_BUNDLE_BYTES

FORBIDDEN = ("torch", "transformers", "openai", "llama_cpp", "scipy", "sklearn", "onnx")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        wheel = build_wheel(work)
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
        if bundle > MAX_BUNDLE_BYTES:
            sys.exit(f"the base has {bundle} bytes, more than {MAX_BUNDLE_BYTES}")
        env = {"HYDRA_EDGE_HOME": str(work / "home"), "PATH": os.environ["PATH"]}
        command = work / "venv" / "bin" / "hydra-edge"
        use(command, env)
        report = json.loads(run(command, "fit-head", "--user", "me", "--json", env=env))
        print(f"fit-head: {json.dumps(report)[:200]} ...")
        use(command, env)  # now that a head is fitted
        run(command, "doctor", env=env)
    print("smoke test passed")


if __name__ == "__main__":
    main()
