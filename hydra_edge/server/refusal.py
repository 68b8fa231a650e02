"""Why a request is not served, in the shape OpenAI's clients read.

Every error of the tree has a status of its own; the exceptions to that are listed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus

from starlette.responses import Response

from hydra_edge.errors import (
    BytesRemainError,
    ContextLengthError,
    HydraError,
    UnknownModelError,
)
from hydra_edge.server.views import Json
from hydra_edge.types import JsonDict

# Clients act on these two as OpenAI gives them: a prompt too long is a bad request, and a server
# without an LLM is one that cannot serve now.
_AS_OPENAI: dict[type[HydraError], tuple[int, str]] = {
    ContextLengthError: (HTTPStatus.BAD_REQUEST, "context_length_exceeded"),
    UnknownModelError: (HTTPStatus.SERVICE_UNAVAILABLE, "no_llm"),
}
_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
# Asked again at once, these fail again, some after minutes of the LLM's work: OpenAI's clients,
# which ask twice more after any 5xx, 409 or 429, are told not to.
_STAYS = frozenset({
    "apps_unusable", "backend_auth", "base_mismatch", "bundle", "bundle_hash", "bundle_version",
    "internal", "no_llm", "timeout",
})  # fmt: skip
_PATIENCE_S = 30.0  # those clients wait no longer, but ask again at once
RETRY_AFTER_S = 1  # an answer takes a second or so, hence a place in the queue comes free


class Refusal(HydraError):
    """A request that is not served, for a reason of the protocol's.

    Parameters
    ----------
    status
        The HTTP status.
    code
        Stable name for programs.
    param
        The part of the request it is about.
    headers
        To be sent with it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = status
        self.param = param
        self.headers = dict(headers or {})


def error_json(error: HydraError) -> JsonDict:
    """Return an error as OpenAI writes it."""
    status, code = _status(error)
    fallback = "invalid_request_error" if status < 500 else "server_error"
    receipt = error.receipt if isinstance(error, BytesRemainError) else None
    deleted = {"deleted": asdict(receipt)} if receipt is not None else {}
    return {
        "error": {
            "message": str(error),
            "type": _TYPES.get(HTTPStatus(status), fallback),
            "param": getattr(error, "param", None),
            "code": code,
            **deleted,
        }
    }


def error_response(error: HydraError) -> Response:
    """Answer a request with an error."""
    status, code = _status(error)
    headers: dict[str, str] = dict(getattr(error, "headers", {}))
    asked = getattr(error, "retry_after", None)
    if asked is not None and math.isfinite(asked):  # by the remote LLM
        headers["Retry-After"] = str(math.ceil(asked))
    if code in _STAYS or (asked or 0.0) > _PATIENCE_S:
        headers["x-should-retry"] = "false"
    elif status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Json(error_json(error), status, headers)


def _status(error: HydraError) -> tuple[int, str]:
    return _AS_OPENAI.get(type(error), (error.http_status, error.code))
