"""What a record's time is worth: whether it can be right, and whether its source says it."""

from __future__ import annotations

import math
import time

from hydra_edge.records import AssumedTime, is_import
from hydra_edge.types import Record

# A clock or a time zone may be this far ahead.
AHEAD_S = 24 * 60 * 60
_BY_HAND = "add"


def is_ahead(record: Record) -> bool:
    """Tell whether a record's time cannot be right, as this device's clock has it."""
    moment = record.time
    return moment is not None and not (math.isfinite(moment) and moment <= time.time() + AHEAD_S)


def time_of(record: Record) -> float | None:
    """Return a record's time; None, which counts as when it was added, if it cannot be right.

    One in the future would be the newest for good, and each that comes after it an older one.
    """
    return None if record.time is None or is_ahead(record) else float(record.time)


def says_when(record: Record) -> bool:
    """Tell whether a record's time is what its source says, and the source can be right of it.

    Programs that add records date them by the clock.
    """
    said = not isinstance(record.time, AssumedTime)
    return said and (record.source == _BY_HAND or is_import(record.source))


def corrects(record: Record, held: Record) -> bool:
    """Tell whether a time given by hand is to replace one that a wrong clock gave.

    An answer that was kept while the clock was ahead can be dated by nothing else.
    """
    return record.source == _BY_HAND and says_when(record) and is_ahead(held)
