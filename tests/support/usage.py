"""Audit lines of jobs that ended in the last days of February 2026."""

from itertools import count
from typing import Any

from sqlalchemy import Engine, insert

from headgate.shared.database.tables import audit
from headgate.shared.database.usage_rollup import begin_ms
from headgate.shared.stats.sketch import bucket

FIRST = 20260227  # the days run over the end of a month
START_MS = begin_ms(FIRST)

new_ids = count()


def line(at_ms: int = START_MS, **fields: Any) -> dict[str, Any]:
    """An audit line of a job that ended then."""
    row = {
        "job_id": f"job-{next(new_ids)}", "status": "succeeded", "error_code": None,
        "priority": "standard", "tenant": "acme", "user_id": None, "batch_id": None,
        "model": "gpt-4o", "model_used": None, "provider": "openai", "cached": None,
        "fallback": False, "attempts": 1, "unknown_attempts": 0, "input_tokens": 10,
        "cached_input_tokens": 0, "cache_write_tokens": 0, "output_tokens": 5,
        "reasoning_tokens": 0, "cost_pico_usd": 1_000, "saved_pico_usd": None,
        "submitted_at_ms": at_ms - 100, "started_at_ms": at_ms - 90, "finished_at_ms": at_ms,
        "queued_ms": 10, "latency_ms": 90, "template": None,
    } | fields  # fmt: skip
    latency_ms = row["latency_ms"]
    placed = None if latency_ms is None else bucket(latency_ms)
    return {"latency_bin": placed, **row}


def put(engine: Engine, *rows: dict[str, Any]) -> None:
    with engine.begin() as connection:
        connection.execute(insert(audit), list(rows))
