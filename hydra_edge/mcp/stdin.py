"""What an application sends: half a character in it must not cost it the answer.

The SDK drops a message with a lone surrogate, which JavaScript leaves of an emoji it cuts, as no
JSON, and the application waits for its answer in vain.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress

from hydra_edge.records import clean_text


def mended(line: bytes) -> bytes:
    """Return a message in which half a character is U+FFFD; one without any as it came."""
    if rb"\ud" not in line.lower():
        return line
    try:
        text = json.dumps(json.loads(line.decode("utf-8", "replace")), ensure_ascii=False)
    except (ValueError, RecursionError):
        return line  # for the SDK to refuse
    return clean_text(text).encode() + b"\n"


def mend_stdin() -> None:
    """Put a pipe in the place of stdin, for good, through which each message comes mended.

    So the SDK reads it as it reads any stdin, and still keeps it from whoever else would.
    """
    try:
        if sys.stdin.buffer.fileno() != 0:
            return
    except (AttributeError, OSError, ValueError):  # no file: a test's, or none at all
        return
    sent = os.fdopen(os.dup(0), "rb")
    read, write = os.pipe()
    os.dup2(read, 0)
    os.close(read)

    def pump() -> None:
        with suppress(OSError), os.fdopen(write, "wb") as pipe, sent:
            for line in sent:
                pipe.write(mended(line))
                pipe.flush()

    threading.Thread(target=pump, name="hydra-edge-stdin", daemon=True).start()
