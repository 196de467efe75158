"""The fields of ours that ride beside a vendor's body: in headers, or in its field `headgate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from headgate.producer.callers.allowed import identity
from headgate.producer.callers.caller import Caller
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.errors import InvalidRequest
from headgate.shared.field_faults import closest
from headgate.shared.job.request import REQUEST_FIELDS

SET_BY_GATEWAY = frozenset({"key_id", "pinned"})
"""Fields of a request that no caller may give: the gateway sets them."""

OF_BODY = REQUEST_FIELDS - SET_BY_GATEWAY - {
    "prompt", "messages", "input", "model", "params", "dialect", "stream", "events",
}  # fmt: skip
"""What a body may hold under `headgate`: all of a request that the vendor's fields do not say."""

PREFIX = "x-headgate-"

_WORDS = {"true": True, "false": False, "on": True, "off": False, "1": True, "0": False}


def own_fields(headers: Mapping[str, str], body: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """Take our fields out of the body, add those of the headers, and return them.

    The body's field `headgate` goes, since no vendor knows it. A header overrides it. Raises
    InvalidRequest for a bad field, and KeyRefused for a name that the caller's key does not allow.
    """
    given = body.pop("headgate", None)
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise InvalidRequest("headgate", given, "give an object with fields of a request")
    for name in given:
        if name not in OF_BODY:
            remedy = f"unknown field; {closest(name, OF_BODY)}"
            raise InvalidRequest(f"headgate.{name}", given[name], remedy)
    fields = {**given, **of_headers(headers)}
    if key := headers.get("idempotency-key"):
        fields.setdefault("idempotency_key", key)
    name_caller(fields, caller)
    return fields


def of_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of ours that the headers hold; raise InvalidRequest for a bad one."""
    fields: dict[str, Any] = {}
    for name in ("priority", "tenant", "user", "idempotency-key", "on-limit", "task", "prefer"):
        if value := headers.get(PREFIX + name):
            fields[name.replace("-", "_")] = value
    if value := headers.get(PREFIX + "deadline-s"):
        fields["deadline_s"] = _seconds(value)
    if value := headers.get(PREFIX + "cache"):
        fields["cache"] = value
    if value := headers.get(PREFIX + "fallback"):
        names = [name.strip() for name in value.split(",") if name.strip()]
        fields["fallback"] = _WORDS.get(value.lower(), names)
    if value := headers.get(PREFIX + "metadata"):
        fields["metadata"] = _object(value)
    return fields


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InvalidRequest(f"{PREFIX}deadline-s", value, "give seconds, such as 30") from None


def _object(value: str) -> dict[str, Any]:
    try:
        found = orjson.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"{PREFIX}metadata", value, 'give an object, such as {"run": "7"}')
    return found


def is_on(headers: Mapping[str, str], name: str) -> bool:
    """Return whether the header of ours says true; raise InvalidRequest for another word."""
    value = headers.get(PREFIX + name)
    if value is None:
        return False
    found = _WORDS.get(value.lower())
    if found is None:
        raise InvalidRequest(PREFIX + name, value, "give true or false")
    return found


def name_caller(fields: dict[str, Any], caller: Caller) -> None:
    """Put in tenant, user and tier of the key; refuse others unless the key allows them.

    The idempotency key becomes the caller's own.
    """
    key = fields.get("idempotency_key")
    if caller.key_id and isinstance(key, str) and key:
        fields["idempotency_key"] = f"{caller.key_id}/{key}"  # another caller's may be the same
    tenant, user = fields.pop("tenant", None), fields.pop("user", None)
    if caller.key_id:
        fields["key_id"] = caller.key_id
    fields["tenant"], user = identity(caller, tenant, user)
    if user is not None:
        fields["user"] = user
    tier = fields.pop("tier", None)
    if tier not in (None, caller.tier) and caller.key_id and "admin" not in caller.scopes:
        raise KeyRefused(403, "tier", "the key does not allow another tier; leave it out")
    if (named := tier or caller.tier) is not None:
        fields["tier"] = named
