"""Measurements: every figure in the documentation comes from a command in here."""

import os

# One thread, as the command line has it; only what is said before numpy is imported counts.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
