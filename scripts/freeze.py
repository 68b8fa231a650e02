"""Freeze the command into a folder that needs no Python, use it there, and say how large it is.

Builds the wheel, installs it with PyInstaller and nothing else into a clean environment, runs
packaging/hydra-edge.spec, and then imports and ranks from the frozen folder with an empty HOME
and an empty PATH.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import venv
from pathlib import Path

from _wheel import ROOT, build_wheel, run, use

SPEC = ROOT / "packaging" / "hydra-edge.spec"
FORBIDDEN = ("torch", "transformers", "scipy", "sympy", "llama_cpp", "huggingface_hub", "tkinter")
LIMIT_MB = 190  # a dependency that drags in another library goes beyond


def freeze(work: Path) -> Path:
    """Build in a clean environment; return the frozen folder."""
    wheel = build_wheel(work)
    venv.create(work / "venv", with_pip=True)
    bin_dir = work / "venv" / "bin"
    run(bin_dir / "python", "-m", "pip", "install", "--quiet", wheel, "pyinstaller>=6.20")
    places = ["--distpath", work / "dist", "--workpath", work / "build"]
    run(bin_dir / "pyinstaller", "--noconfirm", "--log-level", "ERROR", *places, SPEC, cwd=work)
    shutil.rmtree(work / "venv")  # nothing of it may be needed from here on
    return work / "dist" / "hydra-edge"


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
        home = work / "home"
        home.mkdir()
        env = {"HOME": str(home), "PATH": ""}  # nothing but the folder to go by
        use(folder / "hydra-edge", env, cwd=home)
        run(folder / "hydra-edge", "doctor", env=env, cwd=home)
        if args.keep:
            shutil.copytree(folder, args.keep, symlinks=True)
    print("freeze passed")


if __name__ == "__main__":
    main()
