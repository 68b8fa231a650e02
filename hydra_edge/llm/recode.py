"""A GGUF written anew in a form that CPUs multiply faster.

Owns the copy in the cache: made once, complete or absent. 4-bit weights with an offset have no
fast kernel in llama.cpp; the same weights in 8 bits evaluate a prompt in half the time.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from hydra_edge.errors import BackendError
from hydra_edge.llm.gguf import check_gguf
from hydra_edge.llm.native import import_llama_cpp
from hydra_edge.privatefiles import make_private_dir, remove_left_over, replacing_path


def recode_q8(source: Path, folder: Path) -> Path:
    """Return a copy of a model with 8-bit weights (Q8_0), making it on first use.

    SmolLM2-135M from Q4_1, 406 tokens on one thread: 1.2 s instead of 2.4 s for the prompt,
    51 instead of 64 ms for a step of eight candidates. 145 MB instead of 98 MB.

    Raises
    ------
    BackendError
        If it cannot be made or stored.
    """
    check_gguf(source)
    # The name says what it was made from: another release of the model is another copy.
    whole = folder / f"{source.stem}-{source.stat().st_size}.q8_0.gguf"
    remove_left_over(whole)
    try:
        if whole.is_file():
            return whole
        lib = import_llama_cpp()
        make_private_dir(folder)
        params = lib.llama_model_quantize_default_params()
        params.ftype = lib.LLAMA_FTYPE_MOSTLY_Q8_0
        params.allow_requantize = True
        with replacing_path(whole, once=True) as new:  # another may be faster, and reading it
            status = lib.llama_model_quantize(
                os.fsencode(source), os.fsencode(new), ctypes.byref(params)
            )
            if status != 0:
                raise BackendError(
                    f"Model {source.name} cannot be recoded in {folder}: got status {status}; "
                    f"expected 0. Free {2 * source.stat().st_size / 1e6:.0f} MB there, or "
                    "reinstall the model."
                )
    except OSError as err:
        raise BackendError(
            f"Model {source.name} cannot be recoded in {folder}: {err.strerror or err}. Expected "
            f"{2 * source.stat().st_size / 1e6:.0f} MB of room. Free some."
        ) from err
    return whole
