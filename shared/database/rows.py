"""How an ended job is written down, the same by every writer: Celery's record and the audit line.

A worker ends the jobs that it runs; a producer ends those that it cancels before they run.
"""

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
    """The audit line of an ended job, as a row of the table `audit`; it holds no words of it."""
    usage = result.usage
    return {
        "job_id": envelope.id,
        "status": result.status,
        "error_code": result.error.code if result.error else None,
        "priority": envelope.request.priority,
        "tenant": envelope.request.tenant,
        "user_id": envelope.request.user,
        "batch_id": envelope.batch_id,
        "model": envelope.model,
        "model_used": result.model_used,
        "provider": result.provider,
        "cached": result.cached,
        "fallback": result.fallback,
        "attempts": result.attempts,
        "unknown_attempts": unknown_attempts,
        "input_tokens": usage.input_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_pico_usd": cost_pico_usd,
        "saved_pico_usd": saved_pico_usd,
        "submitted_at_ms": envelope.submitted_at_ms,
        "started_at_ms": started_at_ms,
        "finished_at_ms": finished_at_ms,
        "queued_ms": result.queued_ms,
        "latency_ms": result.latency_ms,
        "template": envelope.request.template,
        "latency_bin": None if result.latency_ms is None else bucket(result.latency_ms),
    }


def job_row(envelope: Envelope, encoded: bytes) -> dict[str, Any]:
    """The row of a job that is queued but not yet claimed."""
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
        "deadline_at_ms": envelope.deadline_at_ms,
    }
