"""Install the local LLM backend with a progress bar: it compiles for about five minutes.

PyPI has llama-cpp-python as source only. pip alone is silent while it compiles; this reads
the compiler's own step counter. Needs `hydra-edge` itself to be installed (for rich).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hydra_edge.llm.tiles import WITHOUT

STEP = re.compile(r"\[(\d+)/(\d+)\]")


def surroundings(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return the environment to compile in: without AMX, which older compilers get wrong."""
    env = dict(os.environ)
    if cpuinfo.exists() and "amx_int8" in cpuinfo.read_text(encoding="utf-8").split():
        env |= {name: f"{env.get(name, '')} {flags}".strip() for name, flags in WITHOUT.items()}
    return env


def main(requirement: list[str]) -> int:
    command = [sys.executable, "-m", "pip", "install", "--verbose", *requirement]
    tail: deque[str] = deque(maxlen=40)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("local LLM backend: fetching", total=None)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=surroundings(),
        ) as process:  # fmt: skip
            assert process.stdout is not None
            shown = -1
            for line in process.stdout:
                tail.append(line)
                step = STEP.search(line)
                if not step:
                    continue
                done, total = int(step[1]), int(step[2])
                progress.update(
                    bar,
                    completed=done,
                    total=total,
                    description=f"compiling llama.cpp (about 5 minutes) {done}/{total}",
                )
                # Without a terminal no bar is drawn: say something every tenth.
                if not progress.console.is_terminal and done * 10 // total > shown:
                    shown = done * 10 // total
                    print(f"compiling llama.cpp: {done}/{total}", flush=True)
        progress.update(bar, completed=1, total=1, description="local LLM backend installed")
    if process.returncode:
        sys.stderr.write("".join(tail))
        sys.stderr.write(
            "\nThe local backend could not be installed. It needs a C++ compiler:\n"
            "  Debian, Ubuntu: sudo apt install build-essential python3-dev\n"
            "hydra-edge works without it, with any OpenAI-compatible API.\n"
        )
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
