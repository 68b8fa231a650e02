"""The command line: parses, calls the engine, prints; it decides nothing itself."""

from __future__ import annotations

import gc
import os
import sys

# A first ranking makes some 80,000 objects that stay. Looking through them for garbage every 700,
# and once more at the end, took a sixth of its processor time.
_OBJECTS_PER_COLLECTION = 50_000


def main() -> None:
    """Run one command and leave with its exit code.

    0 is fine, 1 failed, 2 misused, 130 stopped by Ctrl-C, 143 by SIGTERM.
    """
    from hydra_edge.cli.interrupt import INTERRUPTED, exit_code

    try:
        _run()
    except KeyboardInterrupt:  # before the command line is there to take it, or after
        sys.exit(exit_code())
    except SystemExit as end:
        # Commands know of one way to be told to end.
        sys.exit(exit_code() if end.code == INTERRUPTED else end.code)


def _run() -> None:
    # Before numpy is loaded: our matrices are small, and a second BLAS thread on a busy machine
    # made fitting several times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(_OBJECTS_PER_COLLECTION)
    from hydra_edge.cli.interrupt import leave_on_sigterm
    from hydra_edge.cli.streams import StdoutError, give_up, supply_streams

    leave_on_sigterm()
    streams = supply_streams()  # kept: typer wraps them when a reader goes away
    from hydra_edge.cli.app import app

    try:
        try:
            app(prog_name="hydra-edge")
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader went away: leave quietly
        sys.exit(1)
    except StdoutError as err:
        sys.stderr.write(f"error: cannot write to standard output: {err.strerror}\n")
        sys.exit(1)
    finally:
        give_up(*streams)
        gc.freeze()  # the system takes the memory back at once; all files are closed by now
