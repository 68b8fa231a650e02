"""Whether llama.cpp, as it was built, can use this processor's matrix tiles (Intel AMX).

GCC 12 compiles the setting of the tiles' shapes away (``_tile_loadconfig``), and a library built
so dies of an illegal instruction at the first prompt. What kills a process cannot be caught in
it: where there are tiles, a short prompt is tried in a child first. Without them llama.cpp only
is slower.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

# What a compiler is told to build without tiles.
WITHOUT = dict.fromkeys(("CFLAGS", "CXXFLAGS"), "-mno-amx-tile -mno-amx-int8")
REBUILD = " ".join(
    (
        *(f'{name}="{flags}"' for name, flags in WITHOUT.items()),
        "pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python",
    )
)
_TOKENS = 40  # more than a block of rows: fewer take another way
_PATIENCE_S = 60.0  # a child that hangs is as good as dead


def has_tiles(lib: ModuleType) -> bool:
    """Whether llama.cpp was built for matrix tiles; it runs on nothing less then."""
    return b"AMX_INT8 = 1" in lib.llama_print_system_info()


@lru_cache(maxsize=16)
def tiles_work(lib: ModuleType, path: Path) -> bool:
    """Whether a model survives a prompt with matrix tiles, tried once a process.

    Parameters
    ----------
    lib
        llama-cpp-python.
    path
        The GGUF file: which weights are multiplied by tiles depends on their format.
    """
    return not hasattr(os, "fork") or _survives(lib, path)


def _survives(lib: ModuleType, path: Path) -> bool:
    with warnings.catch_warnings():
        # Other threads do not exist in the child, which therefore touches llama.cpp alone.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            _die_quietly()
            _read_a_prompt(lib, path)
        finally:
            os._exit(0)  # whatever else is wrong is found, and said, where the model is opened
    status = None
    until = time.monotonic() + _PATIENCE_S
    try:
        while status is None and time.monotonic() < until:
            done, ended = os.waitpid(child, os.WNOHANG)
            status = ended if done else None
            time.sleep(0.0 if done else 0.005)
    except ChildProcessError:
        # Somebody else took note of its end, or nobody (SIGCHLD is ignored): believe the worst.
        status = int(signal.SIGKILL)
    finally:
        if status is None:  # it hangs, or we were interrupted: no child is left behind
            with suppress(ProcessLookupError, ChildProcessError):  # as above
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    return status is not None and not os.WIFSIGNALED(status)


def _die_quietly() -> None:
    import faulthandler
    import resource

    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _read_a_prompt(lib: ModuleType, path: Path) -> None:
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        return
    how = lib.llama_context_default_params()
    how.n_ctx = how.n_batch = how.n_ubatch = 2 * _TOKENS
    how.n_threads = how.n_threads_batch = 1
    context = lib.llama_init_from_model(model, how)
    if not context:
        return
    tokens = (lib.llama_token * _TOKENS)(*range(_TOKENS))
    lib.llama_decode(context, lib.llama_batch_get_one(tokens, _TOKENS))
