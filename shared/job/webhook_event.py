"""The events of webhooks: their names and bodies. Pure.

Jobs of OpenAI's Responses API and batches have OpenAI's names, so that its SDKs know them; other
jobs have names of ours. A body says what has ended and how. It holds no prompt and no answer: the
receiver reads those with its key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result

JOB_EVENTS = ("job.succeeded", "job.failed", "job.cancelled", "job.expired")
RESPONSE_EVENTS = (
    "response.completed", "response.failed", "response.cancelled", "response.incomplete",
)  # fmt: skip
BATCH_EVENTS = ("batch.completed", "batch.failed", "batch.cancelled", "batch.expired")
EVENTS = (*JOB_EVENTS, *RESPONSE_EVENTS, *BATCH_EVENTS)

PATTERNS = (*EVENTS, "job.*", "response.*", "batch.*")
"""What a tenant may choose: events by name, and all of a kind."""

DAY_MS = 86_400_000
"""How long an event is tried."""

_OF_RESPONSES = {"cancelled": "cancelled", "failed": "failed", "expired": "failed"}


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """An event. `body`: its JSON. `created_at_ms`: the Unix ms at which its job or batch ended."""

    id: str
    type: str
    body: str
    created_at_ms: int


def job_event(envelope: Envelope, result: Result, fence: int, at_ms: int) -> WebhookEvent:
    """Return the event of a job that ended under this claim; the same each time it is asked."""
    digest = _digest(f"{envelope.id}:{fence}")
    if envelope.request.dialect == "responses":
        name = f"response.{_OF_RESPONSES.get(result.status) or _completion(result)}"
        return _event(digest, name, at_ms, {"id": f"resp_{envelope.trace_id}"})
    facts = {
        "id": envelope.id,
        "status": result.status,
        "error_code": result.error.code if result.error else None,
        "batch_id": envelope.batch_id,
    }
    return _event(digest, f"job.{result.status}", at_ms, facts)


def _completion(result: Result) -> Literal["completed", "incomplete"]:
    if isinstance(result.message, dict) and result.message.get("status") == "incomplete":
        return "incomplete"
    return "incomplete" if result.finish_reason in ("length", "content_filter") else "completed"


def batch_event(batch_id: str, outcome: str, at_ms: int) -> WebhookEvent:
    """Return the event of a batch; `outcome` is completed, failed, cancelled or expired."""
    return _event(batch_digest(batch_id), f"batch.{outcome}", at_ms, {"id": batch_id})


def batch_digest(batch_id: str) -> str:
    """Return the id of a batch's event."""
    return _digest(f"batch:{batch_id}")


def _digest(what: str) -> str:
    # A hash, since a Celery task may have any text as its id.
    return f"evt_{hashlib.sha256(what.encode()).hexdigest()[:32]}"


def _event(event_id: str, name: str, at_ms: int, facts: dict[str, Any]) -> WebhookEvent:
    body = {
        "id": event_id,
        "object": "event",
        "created_at": at_ms // 1000,
        "type": name,
        "data": facts,
    }
    return WebhookEvent(event_id, name, orjson.dumps(body).decode(), at_ms)


def chooses(patterns: Iterable[str] | None, name: str) -> bool:
    """Return whether a tenant that chose these events gets one of this name; None is all."""
    if patterns is None:
        return True
    return any(
        one == name or (one.endswith(".*") and name.startswith(one[:-1])) for one in patterns
    )
