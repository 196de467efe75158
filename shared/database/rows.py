"""The rows of a job: of the table `jobs` when it is queued, of `audit` when it has ended."""

from __future__ import annotations

from typing import Any

from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result
from headgate.shared.stats.sketch import bucket


def audit_row(
    envelope: Envelope,
    result: Result,
    *,
    cost_pico_usd: int | None,
    saved_pico_usd: int | None = None,
    unknown_attempts: int = 0,
    started_at_ms: int | None = None,
    finished_at_ms: int,
) -> dict[str, Any]:
    """Return the audit line of an ended job; it holds neither prompt nor answer."""
    return {
        **_asked(envelope),
        "status": result.status,
        "error_code": result.error.code if result.error else None,
        "model_used": result.model_used,
        "provider": result.provider,
        "cached": result.cached,
        "fallback": result.fallback,
        "attempts": result.attempts,
        "unknown_attempts": unknown_attempts,
        **result.usage.as_json(),
        "cost_pico_usd": cost_pico_usd,
        "saved_pico_usd": saved_pico_usd,
        "started_at_ms": started_at_ms,
        "finished_at_ms": finished_at_ms,
        "queued_ms": result.queued_ms,
        "latency_ms": result.latency_ms,
        "latency_bin": None if result.latency_ms is None else bucket(result.latency_ms),
    }


def _asked(envelope: Envelope) -> dict[str, Any]:
    request = envelope.request
    return {
        "job_id": envelope.id,
        "priority": request.priority,
        "tenant": request.tenant,
        "user_id": request.user,
        "batch_id": envelope.batch_id,
        "model": envelope.model,
        "template": request.template,
        "submitted_at_ms": envelope.submitted_at_ms,
        "key_id": request.key_id,
    }


def job_row(envelope: Envelope, encoded: bytes) -> dict[str, Any]:
    """Return the row of a job that is queued and not yet claimed."""
    request = envelope.request
    return {
        "id": envelope.id,
        "status": "queued",
        "priority": request.priority,
        "model_class": envelope.model_class,
        "model": envelope.model,
        "tenant": request.tenant,
        "user_id": request.user,
        "batch_id": envelope.batch_id,
        "batch_line": envelope.batch_line,
        "custom_id": envelope.custom_id,
        "envelope": encoded.decode(),
        "submitted_at_ms": envelope.submitted_at_ms,
        "deadline_at_ms": envelope.waits_until_ms,
        "key_id": request.key_id,
    }
