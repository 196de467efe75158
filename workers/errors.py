"""What ended an attempt, and what a refusal says about other calls to the same pool.

AttemptError                  one request to one model failed (see `code`)
|-- RequestRefused        the request itself is wrong: no retry, no other model
|-- Unauthorized          the key is wrong or lacks a permission: no retry
|-- QuotaExhausted        out of money: no retry
|-- RateLimited           refused by a limit; says when to come back
|-- Overloaded            the provider is overloaded
|-- AttemptTimeout        no answer in time; nobody knows whether it is billed
|-- ConnectionLost        the connection failed; billing is unknown if the request had left
|-- ProviderFault         a fault of the provider (5xx)
|-- InvalidOutput         a malformed or empty answer
+-- ResponseTooLarge      an answer above HEADGATE_RESPONSE_MB; nobody knows whether it is billed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from headgate.shared.errors import ErrorCode, HeadgateError


@dataclass(frozen=True, slots=True)
class Gate:
    """Why a pool is shut or slowed, as its provider says.

    `limited`: a limit is used up. `slow`: the rate has grown too fast. `overloaded`: too many calls
    at once, though within our limits. `money`: the account is out of money until `until_ms` (Unix
    ms; None: no date is known). `flex`: the flex tier has no capacity.
    """

    kind: Literal["limited", "slow", "overloaded", "money", "flex"]
    until_ms: int | None = None


class AttemptError(HeadgateError):
    """One request to one model failed.

    `retryable`: the same model may be asked again. `falls_back`: another model may be asked.
    `waiting_helps`: the same job may succeed later. `billed`: False when the provider says or shows
    that nothing was charged, None when nobody can know. `retry_after_ms`: what the provider asked
    for, however long, or None. `retry_after_note`: what was odd about that, for the log. `headers`:
    those of the refusal that are about limits, in lower case. `gate`: None where the failure
    concerns this request alone.
    """

    code: ErrorCode = "provider_error"
    retryable: ClassVar[bool] = True
    falls_back: ClassVar[bool] = True
    waiting_helps: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        code: ErrorCode | None = None,
        http_status: int | None = None,
        retry_after_ms: int | None = None,
        retry_after_note: str = "",
        billed: bool | None = False,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.http_status = http_status
        self.retry_after_ms = retry_after_ms
        self.retry_after_note = retry_after_note
        self.billed = billed
        self.request_id = request_id
        self.headers: Mapping[str, str] = headers or {}
        self.gate = gate


class RequestRefused(AttemptError):
    """The provider says that the request itself is wrong."""

    code = "invalid_request"
    retryable = False
    falls_back = False


class Unauthorized(AttemptError):
    """The provider does not accept the key (authentication) or its rights (permission)."""

    code = "authentication"
    retryable = False


class QuotaExhausted(AttemptError):
    """The account is out of money or over its spending limit; waiting does not help."""

    code = "provider_quota"
    retryable = False


class RateLimited(AttemptError):
    """A limit of the provider refused the request."""

    code = "rate_limited"


class Overloaded(AttemptError):
    """The provider is overloaded; no limit of ours is used up."""

    code = "overloaded"


class AttemptTimeout(AttemptError):
    """No answer in time."""

    code = "timeout"


class ConnectionLost(AttemptError):
    """The connection to the provider could not be opened, or was lost."""

    code = "connection"


class ProviderFault(AttemptError):
    """The provider failed by its own fault."""

    code = "provider_error"


class InvalidOutput(AttemptError):
    """The provider sent a malformed or empty answer."""

    code = "invalid_output"


class ResponseTooLarge(AttemptError):
    """The answer is above HEADGATE_RESPONSE_MB, so its call was closed.

    It may be billed, and asking again would only pay again: no model is asked after it.
    """

    code = "response_too_large"
    retryable = False
    falls_back = False
    waiting_helps = False
