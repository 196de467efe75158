"""Rows of jobs that ended long ago, with their audit lines and attempts."""

from __future__ import annotations

from itertools import count
from typing import Any

from sqlalchemy import Engine, insert, select

from headgate.shared.database.tables import attempts, audit, batches, jobs, metadata
from headgate.shared.database.usage_rollup import DAY_MS
from tests.support.usage import line

_new_ids = count()


def put_job(
    engine: Engine, ended_ms: int | None, *, job_id: str | None = None, **fields: Any
) -> str:
    """Put a job there that ended then (None: open), with its line and one attempt; return its id.

    `row=False`: without the row of the job itself, as after it was pruned.
    """
    job_id = job_id or f"old-{next(_new_ids):06d}"
    started_ms = fields.pop("started_ms", (ended_ms or 0) - 50)
    has_row = fields.pop("row", True)
    status = "queued" if ended_ms is None else fields.pop("status", "succeeded")
    row = {
        "id": job_id, "status": status, "priority": "standard", "model_class": "smart",
        "model": "gpt-4o", "tenant": "acme", "user_id": None, "envelope": "{}", "result": None,
        "submitted_at_ms": started_ms, "deadline_at_ms": started_ms + DAY_MS,
        "finished_at_ms": ended_ms, "batch_id": None, "batch_line": None,
    } | fields  # fmt: skip
    cost = row.pop("cost_pico_usd", 1_000)
    with engine.begin() as connection:
        if has_row:
            connection.execute(insert(jobs), [row])
        attempt = {
            "job_id": job_id, "fence": 1, "n": 1, "model": "gpt-4o", "provider": "openai",
            "state": "answered", "started_at_ms": started_ms, "waited_ms": 0,
            "cost_pico_usd": cost,
        }  # fmt: skip
        connection.execute(insert(attempts), [attempt])
        if ended_ms is not None:
            owner = {name: row[name] for name in ("tenant", "user_id", "batch_id", "status")}
            told = line(ended_ms, job_id=job_id, cost_pico_usd=cost, **owner)
            connection.execute(insert(audit), [told | {"submitted_at_ms": row["submitted_at_ms"]}])
    return job_id


def put_batch(engine: Engine, batch_id: str, created_ms: int, **fields: Any) -> None:
    """Put the row of a batch there; its jobs come from `put_job`."""
    row = {
        "id": batch_id, "input_path": "/in.jsonl", "input_sha256": "0" * 64, "defaults": "{}",
        "output_path": "/out.jsonl", "lines": 2, "bad_lines": 0, "created_at_ms": created_ms,
        "submitted_at_ms": created_ms, "cancelled_at_ms": None,
    } | fields  # fmt: skip
    with engine.begin() as connection:
        connection.execute(insert(batches), [row])


def ids_in(engine: Engine, table: str) -> set[str]:
    """Return the ids of all jobs (or batches) that the table has rows of."""
    column = metadata.tables[table].c["id" if table in ("jobs", "batches") else "job_id"]
    with engine.connect() as connection:
        return set(connection.scalars(select(column)))
