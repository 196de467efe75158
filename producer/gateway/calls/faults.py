"""What went wrong with a call, as an answer over HTTP says it."""

from __future__ import annotations

from dataclasses import dataclass

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.dialects.errors import DoorCode, should_retry, status_of
from headgate.producer.dialects.openai import as_in_body
from headgate.producer.errors import (
    IdempotencyConflict,
    JobTimeout,
    ResultExpired,
    StreamBroken,
    TierLimit,
    UnknownJob,
)
from headgate.shared.errors import ErrorCode, HeadgateError, InvalidRequest, Unreachable, shown
from headgate.shared.job.result import Result

SERVER_AWAY_S = 5.0
"""After how many seconds a caller may ask again if Redis or the database does not answer."""

RATE_AWAY_S = 1.0
"""The same after a provider's limit refused a job, whose worker has waited for it already."""

_OTHER_REQUEST = "it was given with a different request before; use another key"

_AGAIN_AFTER_S = {429: RATE_AWAY_S, 503: SERVER_AWAY_S}

_OF_KEYS: dict[int, DoorCode] = {
    401: "invalid_api_key", 403: "key_not_allowed", 429: "key_limit",
}  # fmt: skip


class CallRefused(HeadgateError):
    """A call that the gateway refuses by itself. Nothing was queued. `param`: the field at fault.

    `retry_after_s`: when the caller may ask again; None: it does not help.
    """

    def __init__(
        self,
        code: DoorCode | ErrorCode,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code: DoorCode | ErrorCode = code
        self.param = param
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class CallFault:
    """Why a call has no answer. `retryable`: whether asking again can help."""

    code: DoorCode | ErrorCode
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retryable: bool = False
    job_id: str | None = None


def fault_of(error: HeadgateError) -> CallFault:
    """Return what the error means for the caller."""
    text = str(error)
    match error:
        case CallRefused():
            wait_s = error.retry_after_s
            return CallFault(error.code, text, error.param, wait_s, retryable=wait_s is not None)
        case KeyRefused():
            wait_s = error.retry_after_s or None
            code = _OF_KEYS[error.http_status]
            return CallFault(code, text, retry_after_s=wait_s, retryable=wait_s is not None)
        case IdempotencyConflict():  # its text names a job, which may be another caller's
            text = f"idempotency_key: {shown(error.key)}: {_OTHER_REQUEST}"
            return CallFault("conflict", text, "idempotency_key")
        case InvalidRequest():
            error = as_in_body(error)
            return CallFault(error.code, str(error), error.field)
        case TierLimit():
            return CallFault("tier_limit", text, retry_after_s=error.retry_after_s, retryable=True)
        case JobTimeout():
            return CallFault("timeout", text, retryable=True, job_id=error.job_id)
        case Unreachable():  # its text may name an address
            text = "Redis or the database does not answer"
            return CallFault("unavailable", text, retry_after_s=SERVER_AWAY_S, retryable=True)
        case UnknownJob() | ResultExpired():
            return CallFault("not_found", text)
        case StreamBroken():
            return CallFault("provider_error", text)
    return CallFault("internal", "a fault of the gateway; its log has the place", retryable=True)


def fault_of_result(result: Result) -> CallFault:
    """Return why the job of a call has no answer."""
    report = result.error
    if report is None:
        return CallFault("internal", f"the job is {result.status}", job_id=result.id)
    retryable = should_retry(report.code, retryable=report.retryable)
    wait_s = _AGAIN_AFTER_S.get(status_of(report.code, "openai")) if retryable else None
    return CallFault(report.code, report.message, None, wait_s, retryable, job_id=result.id)
