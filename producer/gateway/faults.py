"""What went wrong with a call, as an answer over HTTP says it."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.dialects import errors
from headgate.producer.dialects.openai import as_in_body
from headgate.producer.errors import (
    IdempotencyConflict,
    JobTimeout,
    ResultExpired,
    StreamBroken,
    SubmitInterrupted,
    TierLimit,
    UnknownJob,
)
from headgate.shared.errors import HeadgateError, InvalidRequest, Unreachable
from headgate.shared.job.result import Result

SERVER_AWAY_S = 5.0
"""After how many seconds a caller may ask again if Redis or the database does not answer."""


class CallRefused(HeadgateError):
    """A call that the gateway refuses by itself. `status`: of HTTP. Nothing was queued."""

    def __init__(
        self, status: int, message: str, *, code: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or HTTPStatus(status).phrase.lower().replace(" ", "_")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a call has no answer. `status`: of HTTP, in OpenAI's dialect.

    `retryable`: whether asking again can help; None: the status says it.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retryable: bool | None = None
    job_id: str | None = None


def fault_of(error: HeadgateError) -> Fault:
    """Return what the error means for the caller."""
    text = str(error)
    match error:
        case CallRefused():
            return Fault(error.status, error.code, text, retry_after_s=error.retry_after_s)
        case KeyRefused():
            wait_s = error.retry_after_s or None
            return Fault(error.http_status, error.code, text, retry_after_s=wait_s)
        case IdempotencyConflict():
            return Fault(409, "conflict", text, "idempotency_key", retryable=False)
        case InvalidRequest():
            error = as_in_body(error)
            text = str(error)
            status = errors.status_of(error.code)
            return Fault(status, error.code, text, error.field, retryable=False)
        case TierLimit():
            return Fault(429, "tier_limit", text, retry_after_s=error.retry_after_s)
        case JobTimeout():
            return Fault(504, "timeout", text, job_id=error.job_id)
        case SubmitInterrupted():
            return Fault(503, "unavailable", text, retry_after_s=SERVER_AWAY_S)
        case Unreachable():
            text = f"{error.server} cannot be reached"
            return Fault(503, "unavailable", text, retry_after_s=SERVER_AWAY_S)
        case UnknownJob() | ResultExpired():
            return Fault(404, "not_found", text, retryable=False)
        case StreamBroken():
            return Fault(502, "stream_broken", text, retryable=False)
    return Fault(500, "internal", "a fault of the gateway; its log has the place")


def fault_of_result(result: Result) -> Fault:
    """Return why the job of a call has no answer."""
    report = result.error
    if report is None:
        return Fault(500, "internal", f"the job is {result.status}", job_id=result.id)
    status = errors.status_of(report.code)
    retryable = None if report.retryable else False
    return Fault(status, report.code, report.message, retryable=retryable, job_id=result.id)
