"""Every error that Headgate raises on purpose.

HeadgateError
|-- WrongUse                  the caller can mend it: names the field, the value, the remedy
|   |-- SettingError          an environment variable
|   |-- CatalogError          a key of a catalog file
|   +-- InvalidRequest        a field of a request (code: invalid_request, unknown_model, ...)
|-- Unreachable               Redis, the database or the embedded server does not answer
|   `-- Unfit                 it answers, but no waiting makes it one to work with
|-- TierLimit                 a limit of the caller, who would rather be refused than wait
|-- UnreadableMessage         a message on the broker that is no job
|   +-- NewerEnvelope         a job in the form of the next release
|-- UnknownJob                no job of that id on record
|-- JobTimeout                the job has not ended in the time the caller would wait
|-- JobFailed                 the job ended without an answer; carries the contract's error
+-- AttemptError              one request to one model failed: see workers/errors.py
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Literal

ErrorCode = Literal[
    "invalid_request", "unknown_model", "context_length", "content_filtered", "authentication",
    "permission", "provider_quota", "rate_limited", "overloaded", "timeout", "connection",
    "provider_error", "breaker_open", "invalid_output", "budget_exceeded", "tier_limit",
    "deadline", "cancelled", "unreadable", "internal",
]  # fmt: skip


def shown(value: object, limit: int = 80) -> str:
    """The value as an error may show it: its repr, cut to `limit` characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deep"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def place_of(error: BaseException) -> str:
    """Type and place in the code of an error, fit for any log: its words may quote a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


class HeadgateError(Exception):
    """The root: catch it to catch all that Headgate raises on purpose."""


class WrongUse(HeadgateError):
    """Something the caller wrote is wrong, and `remedy` says what would be right."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {shown(value)}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class SettingError(WrongUse):
    """An environment variable holds what it must not; `field` is its name."""


class CatalogError(WrongUse):
    """A key of a catalog file is wrong; `field` is the dotted key."""

    def __init__(self, file: str, key: str, value: object, remedy: str) -> None:
        super().__init__(key, value, remedy)
        self.args = (f"{file}: {key}: {shown(value)}: {remedy}",)
        self.file = file
        self.key = key


class InvalidRequest(WrongUse):
    """A field of a request is wrong; nothing was queued, nothing was spent."""

    def __init__(
        self, field: str, value: object, remedy: str, code: ErrorCode = "invalid_request"
    ) -> None:
        super().__init__(field, value, remedy)
        self.code: ErrorCode = code


class Unreachable(HeadgateError):
    """A server does not answer; `server` is its name, with no password in it."""

    def __init__(self, server: str, reason: str, remedy: str) -> None:
        super().__init__(f"{server} cannot be reached: {reason}; {remedy}")
        self.server = server
        self.reason = reason
        self.remedy = remedy


class Unfit(Unreachable):
    """A server cannot be worked with, and waiting will not change that."""

    def __init__(self, server: str, reason: str, remedy: str) -> None:
        super().__init__(server, reason, remedy)
        self.args = (f"{server} cannot be used: {reason}; {remedy}",)


class UnreadableMessage(HeadgateError):
    """A message on the broker is no job; `reason` says why, without quoting it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewerEnvelope(UnreadableMessage):
    """A job in the form of the next release, whose workers can run it; ours leave it for them."""

    def __init__(self, version: int, submitted_at_ms: int, deadline_at_ms: int) -> None:
        super().__init__(f"envelope version {version} is the next release's")
        self.version = version
        self.submitted_at_ms = submitted_at_ms
        self.deadline_at_ms = deadline_at_ms


class JobFailed(HeadgateError):
    """The job ended without an answer; `status` is failed, cancelled or expired.

    All arguments have defaults and are plain JSON values: Celery rebuilds this error by calling
    it with what the result backend holds.
    """

    def __init__(
        self,
        message: str = "",
        code: str = "internal",
        job_id: str = "",
        status: str = "failed",
        error: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code, job_id, status, error)
        self.message = message
        self.code = code
        self.job_id = job_id
        self.status = status
        self.error = error or {}

    def __str__(self) -> str:
        return f"job {self.job_id} {self.status}: {self.code}: {self.message}"
