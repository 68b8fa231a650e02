"""The application: routes behind one guard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Router

from hydra_edge.server.guard import Guard
from hydra_edge.server.routes import api_routes
from hydra_edge.server.service import Service, Settings

if TYPE_CHECKING:
    from hydra_edge.aio import AsyncPersonalizer


def create_app(
    person: AsyncPersonalizer, settings: Settings, more: Sequence[BaseRoute] = ()
) -> Guard:
    """Return the server as an ASGI application.

    Parameters
    ----------
    person
        Whom it serves; it stays the caller's to close.
    more
        Further routes behind the same guard. Their handlers find the ``Service`` by
        ``service_of(request)`` and what the token allows by ``scope_of(request)``; errors of
        the tree they raise become answers.

    Returns
    -------
    Guard
        It also knows how many requests run, and can be told to take no more.
    """
    service = Service(person, settings)
    router = Router([*api_routes(), *more], redirect_slashes=False)
    return Guard(router, service)
