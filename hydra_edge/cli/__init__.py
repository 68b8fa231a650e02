"""The command line: parses, calls the engine, prints; it decides nothing itself."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run one command and leave with its exit code (0 fine, 1 failed, 2 misused, 130 stopped)."""
    # Before numpy is loaded: our matrices are small, and a second BLAS thread on a busy machine
    # made fitting several times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from hydra_edge.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="hydra-edge")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader went away: leave quietly, also at interpreter exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
