"""Every error hydra-edge raises on purpose.

``HydraError`` is the only class a door (CLI, server) has to catch. Messages read
*what failed: got X; expected Y. Next step.* ::

    HydraError
    ├── ConfigError            a setting or a command's argument cannot be used
    │   ├── UnknownTaskError   no such task; the message lists those that exist, but to an app
    │   ├── UnknownUserError   no such user; the message lists those that exist
    │   └── UnknownModelError  no such LLM; the message lists those that exist
    ├── BundleError            a base on disk cannot be trusted or used
    │   ├── BundleHashError    a file's sha256 is not the manifest's
    │   ├── BundleVersionError the format or feature version is not ours
    │   └── BaseMismatchError  a head or vector belongs to another base
    ├── StoreError             the user's file cannot be read or written
    │   ├── DiskFullError      no space is left on its disk
    │   ├── BytesRemainError   deleted, but the file may still hold its bytes
    │   └── RecordNotFoundError
    ├── ImportFormatError      a history source cannot be read at all
    ├── ShapeError             arrays disagree (also a ValueError)
    ├── BackendError           the LLM did not do its part
    │   ├── BackendTimeoutError
    │   ├── BackendAuthError
    │   ├── BackendRateLimitError
    │   └── ContextLengthError the prompt does not fit the context window
    ├── EgressDeniedError      policy forbids sending this to a remote model
    ├── CancelledError         the work was told to stop before it came to anything
    └── ClosedError            the personalizer was closed before
"""

from __future__ import annotations

from typing import Any


class HydraError(Exception):
    """Root of the tree; ``code`` is stable for machines, ``http_status`` for the server."""

    code = "error"
    http_status = 500


class ConfigError(HydraError):
    """A setting or a command's argument cannot be used."""

    code = "config"
    http_status = 400


class UnknownTaskError(ConfigError):
    """No task of that name is built in, configured, or present in the history."""

    code = "unknown_task"
    http_status = 404


class UnknownUserError(ConfigError):
    """No user of that name has a file on this device."""

    code = "unknown_user"
    http_status = 404


class UnknownModelError(ConfigError):
    """No LLM answers to that name."""

    code = "unknown_model"
    http_status = 404


class BundleError(HydraError):
    """A base on disk cannot be trusted or used."""

    code = "bundle"


class BundleHashError(BundleError):
    """A file of the bundle does not have the sha256 its manifest states."""

    code = "bundle_hash"


class BundleVersionError(BundleError):
    """The bundle's format or feature version is not one this release reads."""

    code = "bundle_version"


class BaseMismatchError(BundleError):
    """A head or a vector was made with another base than the one loaded."""

    code = "base_mismatch"
    http_status = 409


class StoreError(HydraError):
    """The user's file cannot be read or written."""

    code = "store"


class DiskFullError(StoreError):
    """No space is left on the disk of the user's file."""


class BytesRemainError(StoreError):
    """What was to be erased is deleted, but the file may still hold its bytes.

    ``receipt`` says what ``forget`` deleted (a ``ForgetReceipt``; None if it was not that),
    ``cleared`` how many entries ``clear_log`` did.
    """

    code = "bytes_remain"

    def __init__(self, message: str, *, receipt: Any = None, cleared: int = 0) -> None:
        super().__init__(message)
        self.receipt = receipt
        self.cleared = cleared


class RecordNotFoundError(StoreError):
    """No record has that id."""

    code = "record_not_found"
    http_status = 404


class ImportFormatError(HydraError):
    """A history source cannot be read at all (single bad lines are only reported)."""

    code = "import_format"
    http_status = 400


class ShapeError(HydraError, ValueError):
    """Arrays disagree about their shapes, or hold values that are not finite."""

    code = "shape"
    http_status = 400


class BackendError(HydraError):
    """The LLM did not do its part."""

    code = "backend"
    http_status = 502


class BackendTimeoutError(BackendError):
    """The LLM did not answer in time."""

    code = "backend_timeout"
    http_status = 504


class BackendAuthError(BackendError):
    """The LLM refused our credentials."""

    code = "backend_auth"


class BackendRateLimitError(BackendError):
    """The LLM keeps saying that we ask too often.

    ``retry_after`` is after how many seconds it says it will answer again; None if it does not say,
    infinite if waiting does not help.
    """

    code = "backend_rate_limit"
    http_status = 429

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ContextLengthError(BackendError):
    """The prompt does not fit the LLM's context window."""

    code = "context_length"
    http_status = 413


class EgressDeniedError(HydraError):
    """Policy forbids sending this to a remote model."""

    code = "egress_denied"
    http_status = 403


class CancelledError(HydraError):
    """The work was told to stop before it came to anything."""

    code = "cancelled"
    http_status = 503


class ClosedError(HydraError):
    """The personalizer was closed before."""

    code = "closed"
    http_status = 503
