"""Erasing log entries once they are as old as a person lets them become, down to their bytes.

Asked at every answer, so that it looks at a few entries only. What is due goes with what would be
so within a day, or a tenth of the time for a short one: rewriting the file, which erasing takes,
is then done once in as long.
"""

from __future__ import annotations

import time

from hydra_edge.errors import BytesRemainError
from hydra_edge.store import forget, log
from hydra_edge.store.database import Database

_DAY_S = 86400.0
_SHARE = 10
# How long erasing may wait for other programs; what they keep from it is left to the next opening.
_WAIT_S = 0.2


def expire(db: Database, days: int) -> int:
    """Erase log entries older than so many days; see ``Store.expire_log``."""
    latest = time.time() - days * _DAY_S
    with db.reading() as connection:
        oldest = log.oldest_time(connection)
    if oldest is None or oldest >= latest:
        return 0
    before = latest + min(_DAY_S, days * _DAY_S / _SHARE)
    try:
        with db.waiting_at_most(_WAIT_S):
            return forget.clear_log(
                db, with_choices=False, before=before, generation_id=None, progress=None
            )
    except BytesRemainError as err:
        return err.cleared
