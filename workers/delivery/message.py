"""Reads a raw message of the broker, or says why it cannot be read.

Stock Celery workers die on some malformed messages and lose others. Here the whole message is
checked before Celery sees any of it.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from headgate.shared.broker.queues import TASK
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.encoding import loads
from headgate.workers.delivery.stock_call import canvas_of

LONGEST_LIMIT_S = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Readable:
    """A checked message that Celery may see.

    `not_before_ms` and `expires_at_ms`: its ETA and its `expires` in Unix ms, or None. `priority`:
    Celery's, 0 is the most urgent.
    """

    headers: dict[str, Any]
    body: list[Any]
    not_before_ms: int | None
    expires_at_ms: int | None = None
    priority: int = 0

    def wait_ms(self, now_ms: int) -> int:
        """Return how long the job waits for its ETA, at most until it expires."""
        moments = [at for at in (self.not_before_ms, self.expires_at_ms) if at is not None]
        return 0 if self.not_before_ms is None else min(moments) - now_ms


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job whose lease this worker holds. `tag` is its number in this process.

    `crashes`: how many workers let its lease lapse before. `grant`: what it holds of limits, as
    `headgate.shared.admission.grant.decode` reads it.
    """

    tag: int
    id: str
    queue: str
    crashes: int
    content: Readable
    grant: str = ""


def read(raw: bytes) -> Readable:
    """Return the decoded and checked message.

    Raises UnreadableMessage, with a reason that quotes nothing of the message. Celery sees only
    the headers that are checked here. It would fail on some of the others, and show some in logs,
    events and Flower: stock producers describe the arguments in a header.
    """
    fields = _object(_decoded(raw, "the message"), "the message")
    headers = _object(fields.get("headers"), "headers")
    properties = _object(fields.get("properties"), "properties")
    _check_envelope(fields, headers, properties)
    _check_limits(headers.get("timelimit"))
    retries = headers.get("retries") or 0
    if not isinstance(retries, int) or not 0 <= retries < 2**31:
        raise UnreadableMessage("headers.retries is not a whole number")
    not_before_ms = _moment_ms(headers.get("eta"), "headers.eta")
    expires_at_ms = _moment_ms(headers.get("expires"), "headers.expires")
    body = _body(fields.get("body"), properties.get("body_encoding"))
    checked = {
        "lang": "py", "task": TASK, "id": headers["id"], "root_id": _name(headers.get("root_id")),
        "parent_id": _name(headers.get("parent_id")), "origin": _name(headers.get("origin")),
        "group": _name(headers.get("group")),
        "retries": retries, "timelimit": headers.get("timelimit"), "argsrepr": "",
        "kwargsrepr": "", "ignore_result": True,
    }  # fmt: skip
    if headers.get("ignore_result") is True:
        checked["result_ignored"] = True
    if (canvas := canvas_of(headers, properties, body[2] or {})) is not None:
        checked["canvas"] = canvas
    if expires_at_ms is not None:
        checked["expires"] = headers["expires"]
    if headers.get("stamped_headers"):
        checked |= _stamps(headers)
    return Readable(checked, body, not_before_ms, expires_at_ms, _priority(properties))


def _check_envelope(
    fields: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]
) -> None:
    """Raise UnreadableMessage unless this is a plain JSON message of our task with an id."""
    job_id = headers.get("id")
    if not isinstance(job_id, str) or not 0 < len(job_id) <= 128 or not job_id.isprintable():
        raise UnreadableMessage("headers.id is not a text of 1 to 128 printable characters")
    if fields.get("hg", job_id) != job_id:
        raise UnreadableMessage("hg is not headers.id")
    if headers.get("task") != TASK:
        raise UnreadableMessage(f"headers.task is not {TASK}")
    if fields.get("content-type") != "application/json":
        raise UnreadableMessage("content-type is not application/json; nothing is ever unpickled")
    if headers.get("compression") is not None:
        raise UnreadableMessage("headers.compression is set; send messages uncompressed")
    if not isinstance(properties.get("delivery_info") or {}, dict):
        raise UnreadableMessage("properties.delivery_info is not an object")


def _body(encoded: object, encoding: object) -> list[Any]:
    """Return args, kwargs and embed out of the message's body."""
    body = _decoded(_body_bytes(encoded, encoding), "the body")
    if not isinstance(body, list) or len(body) != 3:
        raise UnreadableMessage("the body is not a list of args, kwargs and embed")
    args, kwargs, embed = body
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise UnreadableMessage("the body's args are not a list, or its kwargs no object")
    if not isinstance(embed or {}, dict):
        raise UnreadableMessage("the body's embed is not an object")
    return body


def _stamps(headers: dict[str, Any]) -> dict[str, Any]:
    """Return the stamps by which Celery revokes tasks; none where they are not of its form."""
    names, stamps = headers["stamped_headers"], headers.get("stamps")
    if not isinstance(stamps, dict) or not isinstance(names, list):
        return {}
    found = [name for name in names if isinstance(name, str) and name in stamps]
    return {"stamped_headers": found, "stamps": {name: stamps[name] for name in found}}


def _priority(properties: dict[str, Any]) -> int:
    """Return the priority as kombu reads it: from 0 to 9, and 0 for what is no number."""
    found = properties.get("priority")
    if isinstance(found, bool) or not isinstance(found, int):
        return 0
    return max(0, min(9, found))


def _name(value: object) -> str | None:
    short = isinstance(value, str) and len(value) <= 128 and value.isprintable()
    return str(value) if short else None


def _decoded(raw: bytes | str, what: str) -> Any:
    try:
        return loads(raw)
    except orjson.JSONDecodeError as error:
        reason = str(error).partition(":")[0]
        raise UnreadableMessage(f"{what} is not JSON: {reason}") from None


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableMessage(f"{what} is not an object")
    return value


def _body_bytes(body: object, encoding: object) -> bytes | str:
    if not isinstance(body, str):
        raise UnreadableMessage("the body is not a text")
    if encoding != "base64":
        return body
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise UnreadableMessage("the body is not base64") from None


def _check_limits(limits: object) -> None:
    if limits is None:
        return
    if not isinstance(limits, list) or len(limits) != 2 or not all(map(_is_limit, limits)):
        raise UnreadableMessage("headers.timelimit is not a pair of seconds")


def _is_limit(value: object) -> bool:
    if value is None:
        return True
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= LONGEST_LIMIT_S  # type: ignore[operator]  # is_number


def _moment_ms(value: object, what: str) -> int | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)  # type: ignore[arg-type]  # TypeError is caught
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        raise UnreadableMessage(f"{what} is not a moment in ISO 8601") from None
