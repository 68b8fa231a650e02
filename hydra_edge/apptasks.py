"""Which tasks an app may use: none of which it would learn that the person has it.

The name of a task may tell as much as its records. So whoever may see no private record may name
a task only if it is built in, has a record that is not private, or was named by the person for
apps; every other one does not exist, be it unknown or private.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hydra_edge.errors import UnknownTaskError
from hydra_edge.tasks import BUILTIN, canonical_name
from hydra_edge.types import DEFAULT_TASK

if TYPE_CHECKING:
    from hydra_edge.personalizer import Personalizer

_REFUSED = (
    "This task cannot be used: got one that is unknown here, or that has private records only; "
    "expected one that is built in, or that has a record which is not private. Leave the task out, "
    "or have the person whose history this is name it by --task."
)


def app_task(person: Personalizer, wanted: str | None, named: Iterable[str | None] = ()) -> str:
    """Return the canonical name of the task an app is served.

    Parameters
    ----------
    wanted
        None: the setting ``task``, else the most used one that has a record which is not private.
    named
        Tasks the person named for the app, besides the setting ``task``.

    Raises
    ------
    UnknownTaskError
        If the app may not use the task; the message names none.
    """
    default = person.config.task
    name = canonical_name(wanted or default or "")
    if not name:
        return next(iter(person.store.public_tasks()), DEFAULT_TASK)
    known = {canonical_name(task) for task in (*named, default) if task} | BUILTIN.keys()
    if name not in known and name not in person.store.public_tasks():
        raise UnknownTaskError(_REFUSED)
    try:
        person.task(name)  # one that was named may have no record any more
    except UnknownTaskError:
        raise UnknownTaskError(_REFUSED) from None  # ours names no other task
    return name
