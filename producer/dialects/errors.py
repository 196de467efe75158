"""Errors in the form of either dialect: the status, the body, and whether to ask again.

A fault of a provider's key is no fault of the caller's: it is a bad gateway (502), and the message
says so. Anthropic has a status of its own for overload (529).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from headgate.producer.dialects.fields import Fields
from headgate.shared.errors import ErrorCode
from headgate.shared.job.request import Dialect

DoorCode = Literal[
    "invalid_api_key", "key_not_allowed", "not_found", "method_not_allowed", "request_timeout",
    "conflict", "gone", "request_too_large", "unsupported_media_type", "unprocessable",
    "headers_too_large", "key_limit", "unavailable",
]  # fmt: skip
"""Codes of calls that never became a job."""


@dataclass(frozen=True, slots=True)
class DialectError:
    """How one code looks to callers.

    `openai_code`: None: our own code. `at_anthropic`: its type there. `status_at_anthropic`: 0: the
    same as at OpenAI. `may_retry`: whether asking again can help. `param`: the field at fault.
    """

    status: int
    openai_type: str
    at_anthropic: str
    may_retry: bool = False
    openai_code: str | None = None
    status_at_anthropic: int = 0
    param: str | None = None


_WRONG = "invalid_request_error"
_SERVER = "server_error"
_API = "api_error"
_LIMIT = DialectError(429, "rate_limit_error", "rate_limit_error", True, "rate_limit_exceeded")
_QUOTA = "insufficient_quota"
_LATE = DialectError(504, _SERVER, "timeout_error")
_BUSY = DialectError(503, _SERVER, "overloaded_error", True, "server_is_overloaded", 529)

ERRORS: dict[ErrorCode | DoorCode, DialectError] = {
    "invalid_request": DialectError(400, _WRONG, _WRONG),
    "unknown_model": DialectError(
        404, _WRONG, "not_found_error", openai_code="model_not_found", param="model"
    ),
    "context_length": DialectError(
        400, _WRONG, _WRONG, openai_code="context_length_exceeded", param="messages"
    ),
    "content_filtered": DialectError(
        400, _WRONG, _WRONG, openai_code="content_filter", param="messages"
    ),
    "authentication": DialectError(502, _SERVER, _API, openai_code="provider_authentication"),
    "permission": DialectError(502, _SERVER, _API, openai_code="provider_permission"),
    "provider_quota": DialectError(503, _SERVER, _API),
    "rate_limited": _LIMIT,
    "overloaded": _BUSY,
    "timeout": DialectError(504, _SERVER, "timeout_error", True),
    "connection": DialectError(502, _SERVER, _API, True),
    "provider_error": DialectError(502, _SERVER, _API, True),
    "breaker_open": DialectError(503, _SERVER, "overloaded_error", True),
    "invalid_output": DialectError(502, _SERVER, _API, True),
    "budget_exceeded": DialectError(402, _QUOTA, "billing_error", openai_code=_QUOTA),
    "tier_limit": _LIMIT,
    "deadline": _LATE,
    "expired": _LATE,
    "cancelled": DialectError(499, "request_cancelled", _API),
    "unreadable": DialectError(500, _SERVER, _API),
    "response_too_large": DialectError(502, _SERVER, _API),
    "internal": DialectError(500, _SERVER, _API, True),
    "invalid_api_key": DialectError(401, _WRONG, "authentication_error"),
    "key_not_allowed": DialectError(403, "permission_error", "permission_error"),
    "not_found": DialectError(404, _WRONG, "not_found_error"),
    "method_not_allowed": DialectError(405, _WRONG, _WRONG),
    "request_timeout": DialectError(408, _WRONG, "timeout_error", True),
    "conflict": DialectError(409, "conflict_error", "conflict_error"),
    "gone": DialectError(410, _WRONG, "not_found_error"),
    "request_too_large": DialectError(413, _WRONG, "request_too_large"),
    "unsupported_media_type": DialectError(415, _WRONG, _WRONG),
    "unprocessable": DialectError(422, _WRONG, _WRONG),
    "headers_too_large": DialectError(431, _WRONG, _WRONG),
    "key_limit": _LIMIT,
    "unavailable": DialectError(503, _SERVER, _API, True),
}
"""All codes: those of jobs, and those of calls that never became one."""

CODES: frozenset[str] = frozenset({*get_args(ErrorCode), *get_args(DoorCode)})

_TOO_LONG = "prompt is too long"
"""The words by which programs know that a prompt does not fit into Anthropic's context."""


def kind_of(code: str, status: int = 500) -> DialectError:
    """Return how the code looks to callers; for one that we do not know, by the HTTP status."""
    if code in CODES:
        return ERRORS[code]  # type: ignore[index]
    alike = (kind for kind in ERRORS.values() if kind.status == status)
    return next(alike, ERRORS["internal"])


def status_of(code: str, dialect: Dialect) -> int:
    """Return the HTTP status for the code."""
    kind = kind_of(code)
    return (dialect == "anthropic" and kind.status_at_anthropic) or kind.status


def should_retry(code: str, *, retryable: bool = True) -> bool:
    """Return whether asking again can help; `x-should-retry` tells the SDKs.

    `retryable`: what the error of the result says.
    """
    return retryable and kind_of(code).may_retry


def error_body(
    dialect: Dialect,
    code: str,
    message: str,
    *,
    param: str | None = None,
    request_id: str | None = None,
    status: int = 500,
) -> Fields:
    """Return the body of an error.

    `param`: the field at fault; only OpenAI's form has it. `status`: that of the answer; it only
    counts for a code that we do not know.
    """
    kind = kind_of(code, status)
    if dialect != "anthropic":
        return {
            "error": {
                "message": message,
                "type": kind.openai_type,
                "param": param or kind.param,
                "code": kind.openai_code or code,
            }
        }
    if code == "context_length" and _TOO_LONG not in message.lower():
        message = f"{_TOO_LONG}: {message}"
    error = {"type": kind.at_anthropic, "message": message}
    return {"type": "error", "error": error, "request_id": request_id}
