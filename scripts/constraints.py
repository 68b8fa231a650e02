"""Write down the versions a development environment would get today, for `make setup` to repeat.

    python scripts/constraints.py

Users get what pyproject.toml allows; who changes the project gets what its tests last passed with,
so that a new release of a linter or of a library cannot turn an old commit red. Nothing is
installed: pip resolves and reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# File -> what `make` installs with it.
SETS = {
    "dev.txt": (".[local,dev,bench]",),
    "export.txt": (".[export]", "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"),
}
NOT_PINNED = {"hydra-edge", "pip", "setuptools"}
HEADER = "# Written by `python scripts/constraints.py`: what `make {target}` installs.\n"
TARGETS = {"dev.txt": "setup", "export.txt": "test-export"}


def resolve(requirements: tuple[str, ...]) -> dict[str, str]:
    """Return the version of every package these requirements lead to, but for our own."""
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
        "--report", "-", *requirements,
    ]  # fmt: skip
    found = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    packages = (item["metadata"] for item in json.loads(found.stdout)["install"])
    # The build a machine takes ("+cpu") is its own affair.
    versions = {p["name"].lower(): p["version"].partition("+")[0] for p in packages}
    return {name: version for name, version in versions.items() if name not in NOT_PINNED}


def main() -> None:
    folder = ROOT / "constraints"
    folder.mkdir(exist_ok=True)
    for name, requirements in SETS.items():
        print(f"resolving {' '.join(requirements)}", flush=True)
        versions = resolve(requirements)
        lines = [f"{package}=={version}\n" for package, version in sorted(versions.items())]
        text = HEADER.format(target=TARGETS[name]) + "".join(lines)
        (folder / name).write_text(text, encoding="utf-8")
        print(f"written to constraints/{name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
