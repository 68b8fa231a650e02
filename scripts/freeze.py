"""Freeze the command into a folder that needs no Python, use it there, and say how large it is.

Builds the wheel, installs it with PyInstaller and nothing else into a clean environment, runs
packaging/hydra-edge.spec, and then imports and ranks from the frozen folder with an empty HOME
and an empty PATH.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "packaging" / "hydra-edge.spec"
SAMPLE = ROOT / "examples" / "papers" / "author-b.jsonl"
FORBIDDEN = ("torch", "transformers", "scipy", "sympy", "llama_cpp", "huggingface_hub", "tkinter")
LIMIT_MB = 190  # a dependency that drags in another library goes beyond


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command, return its output; stop with all it printed if it fails."""
    words = [str(part) for part in command]
    result = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, check=False)
    if result.returncode:
        sys.exit(f"failed: {' '.join(words)}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def freeze(work: Path) -> Path:
    """Build in a clean environment; return the frozen folder."""
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", work, ROOT)
    (wheel,) = work.glob("hydra_edge-*.whl")
    venv.create(work / "venv", with_pip=True)
    bin_dir = work / "venv" / "bin"
    run(bin_dir / "python", "-m", "pip", "install", "--quiet", wheel, "pyinstaller>=6.20")
    places = ["--distpath", work / "dist", "--workpath", work / "build"]
    run(bin_dir / "pyinstaller", "--noconfirm", "--log-level", "ERROR", *places, SPEC, cwd=work)
    shutil.rmtree(work / "venv")  # nothing of it may be needed from here on
    return work / "dist" / "hydra-edge"


def use(folder: Path, home: Path) -> None:
    """Import a sample and rank its records, with nothing but the folder to go by."""
    home.mkdir()
    env = {"HOME": str(home), "PATH": ""}
    command = folder / "hydra-edge"
    print(run(command, "--version", env=env, cwd=home).strip(), flush=True)
    sample = ("jsonl", SAMPLE, "--user", "me", "--task", "paper_title")
    run(command, "import", *sample, env=env, cwd=home)
    ranked = json.loads(run(command, "rank", "parsing sentences", "--json", env=env, cwd=home))
    titles = [record["output"] for record in ranked["records"]]
    if len(titles) != 4:
        sys.exit(f"expected four records, got {ranked}")
    print(f"rank begins with {titles[0]!r}")
    run(command, "doctor", env=env, cwd=home)


def weigh(folder: Path) -> None:
    """Print the size and what it is made of; stop if anything is in it that must not be."""
    parts: dict[str, int] = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            inner = file.relative_to(folder).parts
            name = inner[1] if len(inner) > 1 else inner[0]
            parts[name] = parts.get(name, 0) + file.stat().st_size
    total = sum(parts.values()) / 1e6
    largest = sorted(parts.items(), key=lambda part: -part[1])[:7]
    print(f"frozen: {total:.0f} MB; " + ", ".join(f"{n} {s / 1e6:.0f}" for n, s in largest))
    inside = [name for name in FORBIDDEN if (folder / "_internal" / name).exists()]
    if inside:
        sys.exit(f"the frozen folder contains {', '.join(inside)}")
    if total > LIMIT_MB:
        sys.exit(f"the frozen folder has {total:.0f} MB, more than {LIMIT_MB}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="copy the frozen folder there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = freeze(work)
        weigh(folder)
        use(folder, work / "home")
        if args.keep:
            shutil.copytree(folder, args.keep, symlinks=True)
    print("freeze passed")


if __name__ == "__main__":
    main()
