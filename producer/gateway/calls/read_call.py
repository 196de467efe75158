"""Read what a call asks for out of its headers and its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from headgate.producer.callers.caller import Caller
from headgate.producer.gateway.calls.body import decoded, read_body
from headgate.producer.gateway.calls.call import GatewayCall, Kind
from headgate.producer.gateway.calls.dialects import DIALECTS, Wish, fields_of
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.own_fields import is_on, own_fields
from headgate.producer.gateway.calls.retries import digest_of
from headgate.shared.job.request import (
    DEFAULT_DEADLINE_S,
    LONGEST_NAME,
    MAX_DEADLINE_S,
    MODERATION_MODEL,
)
from headgate.shared.settings import Settings


async def read_call(
    request: Request, kind: Kind, caller: Caller, settings: Settings, request_id: str
) -> GatewayCall:
    """Return the call; raise CallRefused, InvalidRequest, KeyRefused or ClientDisconnect."""
    headers = dict(reversed(request.headers.items()))  # of a header sent twice the first counts
    raw = await read_json(request, settings)
    body = decoded(raw)
    ours = own_fields(headers, body, caller)
    wish = fields_of(kind, body, headers)
    fields = _fields(wish, ours, caller)
    longest_s = settings.gateway_wait_s
    if wish.background:  # nobody waits, so the deadline is that of any job
        longest_s = MAX_DEADLINE_S
        fields.setdefault("deadline_s", DEFAULT_DEADLINE_S)
    wait_s = fields.setdefault("deadline_s", longest_s)
    return GatewayCall(
        dialect=DIALECTS[kind],
        kind=kind,
        caller=caller,
        fields=fields,  # type: ignore[arg-type]  # checked when they are submitted
        request_id=request_id,
        model=str(fields.get("model") or _default_model(kind, settings)),
        wait_s=min(wait_s, longest_s) if isinstance(wait_s, int | float) else longest_s,
        is_patient=wish.background or "deadline_s" in ours,
        detach=wish.background or is_on(headers, "detach"),
        include_usage=wish.include_usage,
        json_only=wish.json_only,
        base64=wish.base64,
        retry=_retry_of(headers),
        digest=_digest(request, raw, caller, fields),
        after=last_event(request, first=0 if kind == "responses" else 1),
        background=wish.background,
        is_known=wish.background,
        is_stored=wish.is_stored,
        asked=wish.asked,
    )


def _default_model(kind: Kind, settings: Settings) -> str:
    return MODERATION_MODEL if kind == "moderations" else settings.model


def _digest(request: Request, raw: bytes, caller: Caller, fields: dict[str, Any]) -> str:
    """Return what is equal in this call and its retries; empty: a retry cannot be known."""
    key = fields.get("idempotency_key")
    if _retry_of(request.headers) is None and not isinstance(key, str):
        return ""
    who = {"tenant": fields.get("tenant"), "user": fields.get("user")}
    return digest_of(caller, request.url.path, raw, key, **who)


async def read_json(request: Request, settings: Settings) -> bytes:
    """Return the body of a request, within the bounds of the settings."""
    most_bytes = settings.gateway_body_mb * 1_000_000
    return await read_body(request, most_bytes=most_bytes, within_s=settings.gateway_body_s)


def _fields(wish: Wish, ours: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Return the fields of the request.

    The user that a body names to the vendor counts if the key allows any, and if it can be a name
    of ours. Claude Code names device and session there, in JSON that is longer.
    """
    fields: dict[str, Any] = {**wish.fields, **ours}
    fields.setdefault("priority", "interactive")
    if (marks := wish.fields.get("metadata")) and isinstance(ours.get("metadata", {}), dict):
        fields["metadata"] = {**marks, **ours.get("metadata", {}), **marks}
    if not wish.is_stored:  # whatever else the caller says of the cache
        fields["cache"] = {"mode": "off"}
    if caller.any_user and _can_be_name(wish.user):
        fields.setdefault("user", wish.user)
    if fields.get("stream"):  # what a crash broke off is never begun anew, so never paid twice
        fields.setdefault("on_unknown", "fail")
    return fields


def _can_be_name(user: object) -> bool:
    return isinstance(user, str) and 0 < len(user) <= LONGEST_NAME and "\0" not in user


def _retry_of(headers: Mapping[str, str]) -> int | None:
    """Return how often the SDK has asked before; None: it does not say."""
    count = headers.get("x-stainless-retry-count", "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else None


def last_event(request: Request, *, first: int = 1) -> int:
    """Return how many events of a stream the caller has. `first`: the number of the first one."""
    given = request.query_params.get("starting_after") or request.headers.get("last-event-id")
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        words = f"starting_after: {given[:80]!r}: give the number of an event"
        raise CallRefused("invalid_request", words, param="starting_after")
    return int(given) + 1 - first
