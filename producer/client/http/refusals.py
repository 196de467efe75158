"""What a gateway's refusal means for the caller: the exception that the library raises itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.dialects.fields import fields_of
from headgate.producer.dialects.own_errors import error_from
from headgate.shared.errors import HeadgateError, InvalidRequest, Unfit, Unreachable
from headgate.shared.redis_url import masked

AGAIN = "try again; if it stays away, see whether `headgate gateway` runs there"

NO_GATEWAY = "check base_url: it must be the address of a Headgate gateway"

_AWAY = (500, 502, 503, 504)
_OF_KEYS = (401, 403, 429)
_OWN_KINDS = ("", "CallRefused", "HeadgateError")
"""Kinds that say nothing which the library has an exception for."""


def is_passing(status: int, body: object) -> bool:
    """Return whether the gateway, or a proxy before it, is away for a moment only."""
    return status in (502, 503, 504) and _kind(body) in _OWN_KINDS


def refusal_of(gateway: str, status: int, headers: Mapping[str, str], body: object) -> Exception:
    """Return the exception for an answer that is no success.

    `gateway`: how errors name it. `body`: the decoded JSON, or None.
    """
    if _kind(body) not in _OWN_KINDS:
        return error_from(body)
    told: Mapping[str, Any] = fields_of(fields_of(body).get("error"))
    message = str(told.get("message") or f"it answered with status {status}")
    if status in _OF_KEYS:
        code = str(told.get("code") or "key_not_allowed")
        return KeyRefused(status, code, message, _seconds(headers.get("retry-after")))  # type: ignore[arg-type]  # one of them
    if status in _AWAY:
        return Unreachable(gateway, message, AGAIN)
    if status == 413:
        return InvalidRequest("request", "too large", message)
    if 300 <= status < 400:
        target = masked(headers.get("location", "nowhere"))[:200]
        return Unfit(gateway, f"it redirects to {target}", "give the final address as base_url")
    if not told:
        return Unfit(gateway, message, NO_GATEWAY)
    return HeadgateError(message)


def _kind(body: object) -> str:
    told = fields_of(fields_of(fields_of(body).get("error")).get("headgate"))
    return str(told.get("kind", ""))


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
