"""KV states of prompt beginnings, kept on disk so that the next process need not evaluate them.

Owns files only their owner can read, complete or absent, and how many bytes they may take. A
file that is damaged, or was made by another model or library, is as good as none. What may be
kept is for the caller to say: a state can be read back into the text it came from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hydra_edge.errors import ConfigError
from hydra_edge.privatefiles import make_private_dir, remove_left_over, replacing

CAP_BYTES = 64 << 20  # of one folder; SmolLM2 takes 1.5 MB for 64 tokens, Gemma 3 270M 1.2 MB
_MAGIC = b"hydra-edge kv 1\n"
_SUFFIX = ".kv"


class KeptStates:
    """States by the tokens that lead to them, for one model in one library.

    Parameters
    ----------
    folder
        Where they are; made when the first is kept.
    identity
        Whatever a state depends on beside its tokens: model, library, CPU.
    cap_bytes
        Most that the folder may hold; those not read for longest go first.
    """

    def __init__(self, folder: Path, identity: str, *, cap_bytes: int = CAP_BYTES) -> None:
        self._folder = folder
        self._identity = identity
        self._cap_bytes = cap_bytes

    def __repr__(self) -> str:
        return f"KeptStates({str(self._folder)!r})"

    def read(self, tokens: Sequence[int]) -> bytes | None:
        """Return the state after these tokens, or None."""
        path = self._path(tokens)
        try:
            raw = path.read_bytes()
        except OSError:
            return None
        begin = len(_MAGIC) + hashlib.sha256().digest_size
        state = raw[begin:]
        if raw[:begin] != _MAGIC + hashlib.sha256(state).digest():
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return state

    def write(self, tokens: Sequence[int], state: bytes) -> None:
        """Keep a state; where the disk refuses, nothing is kept and nothing is lost."""
        path = self._path(tokens)
        with suppress(OSError, ConfigError):
            make_private_dir(self._folder)
            remove_left_over(path, like=f"*{_SUFFIX}")
            with replacing(path) as stream:
                stream.write(_MAGIC + hashlib.sha256(state).digest() + state)
            self._shrink()

    def _path(self, tokens: Iterable[int]) -> Path:
        key = f"{self._identity}\n{' '.join(map(str, tokens))}"
        return self._folder / (hashlib.sha256(key.encode()).hexdigest()[:32] + _SUFFIX)

    def _shrink(self) -> None:
        files = [(path.stat(), path) for path in self._folder.glob(f"*{_SUFFIX}")]
        size = sum(stat.st_size for stat, _ in files)
        for stat, path in sorted(files, key=lambda f: f[0].st_mtime_ns):
            if size <= self._cap_bytes:
                return
            path.unlink(missing_ok=True)
            size -= stat.st_size


def file_identity(path: Path) -> str:
    """Name a model file as it is now: its first MiB, where a GGUF describes itself, and more."""
    stat = path.stat()
    with path.open("rb") as stream:
        first = hashlib.sha256(stream.read(1 << 20)).hexdigest()
    return f"{first}:{stat.st_size}:{stat.st_mtime_ns}"
