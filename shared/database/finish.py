"""Ends jobs that no worker runs: in the database with an audit line, and for all who wait.

A producer ends the jobs that it cancels, and maintenance those whose deadline has passed while they
waited. A message that stays on the broker is harmless: the claim sees that its job has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import redis
from sqlalchemy import Connection, Row, Update, bindparam, insert, select, update

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.cost.price import usd_text
from headgate.shared.database.many_rows import insert_all
from headgate.shared.database.rows import audit_row
from headgate.shared.database.tables import attempts, audit, callbacks, jobs, webhook_deliveries
from headgate.shared.database.webhooks import event_row, subscriptions
from headgate.shared.errors import ErrorCode
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.history import History, history_of, late_message
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import ErrorReport, Result, Status, Usage
from headgate.shared.job.result_text import encode_result

FORGOTTEN_PER_CALL = 100
"""How many jobs one script call removes from their waiting queues; it reads each message."""

_STATUS: dict[ErrorCode, Status] = {
    "cancelled": "cancelled", "deadline": "expired", "expired": "expired",
}  # fmt: skip


def end_waiting(
    connection: Connection,
    waiting: Iterable[tuple[Row[Any], Envelope]],
    error: ErrorReport,
    *,
    at_ms: int,
) -> list[Result]:
    """End the jobs of these rows with this error, and return their results.

    The rows are those of waiting jobs, locked by this transaction. Their fences rise, so that late
    claims fail. The cost of earlier attempts counts, and the error lists them.
    """
    waiting = list(waiting)
    tried = _attempts(connection, [row.id for row, _ in waiting if row.fence])
    results, lines, changes = [], [], []
    for row, envelope in waiting:
        history = history_of(tried[row.id], share_pico_usd=row.share_pico_usd or 0)
        result = _result(row, envelope, _usage_of(tried[row.id]), history, error, at_ms)
        results.append(result)
        changes.append({"job": row.id, "text": encode_result(result)})
        lines.append(
            audit_row(
                envelope,
                result,
                cost_pico_usd=history.cost_pico_usd,
                unknown_attempts=len(history.unknown_models),
                started_at_ms=row.started_at_ms,
                finished_at_ms=at_ms,
            )
        )
    if results:
        connection.execute(_ended(error, at_ms), changes)
        connection.execute(insert(audit), lines)
        # A worker's maintenance sends what Celery sends at the end of a task.
        unsent = [one.id for _, one in waiting if one.canvas is not None]
        if unsent:
            rows = [{"job_id": job_id, "due_at_ms": at_ms} for job_id in unsent]
            insert_all(connection, callbacks, rows)
        _write_events(connection, waiting, results, at_ms)
    return results


def _write_events(
    connection: Connection, ended: Sequence[tuple[Row[Any], Envelope]], results: Sequence[Result],
    at_ms: int,
) -> None:  # fmt: skip
    """Write the events of these jobs for their webhooks; a worker's maintenance sends them."""
    subscribed = subscriptions(connection, {one.request.tenant for _, one in ended})
    rows = [
        event_row(envelope, result, row.fence + 1, at_ms, subscribed)
        for (row, envelope), result in zip(ended, results, strict=True)
    ]
    if events := [row for row in rows if row is not None]:
        insert_all(connection, webhook_deliveries, events)


def _ended(error: ErrorReport, at_ms: int) -> Update:
    """Return the statement that ends the job `:job` with the result `:text`."""
    ended = update(jobs).where(jobs.c.id == bindparam("job"))
    ended = ended.values(
        status=_STATUS[error.code], fence=jobs.c.fence + 1, worker=None, retry_at_ms=None,
        finished_at_ms=at_ms, result=bindparam("text"),
    )  # fmt: skip
    return ended.values(cancel_wanted=True) if error.code == "cancelled" else ended


def publish(
    client: redis.Redis, keys: Keys, results: Sequence[Result], *, result_ttl_s: int
) -> None:
    """Publish the results to all who wait, and remove the jobs from their waiting queues."""
    calls = [
        broker_jobs.publish(keys, job_id=one.id, record=celery_record(one), ttl_s=result_ttl_s)
        for one in results
    ]
    rest = iter([result.id for result in results])
    while chunk := list(islice(rest, FORGOTTEN_PER_CALL)):
        calls.append(broker_jobs.forget(keys, chunk))
    script.run_all(client, calls)


def _attempts(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    if ids:
        order = (attempts.c.job_id, attempts.c.fence, attempts.c.n)
        query = select(attempts).where(attempts.c.job_id.in_(ids)).order_by(*order)
        for row in connection.execute(query):
            found[row.job_id].append(row)
    return found


def _usage_of(tried: Sequence[Any]) -> Usage:
    usage = Usage()
    for attempt in tried:
        usage += Usage(
            attempt.input_tokens, attempt.cached_input_tokens, attempt.cache_write_tokens,
            attempt.output_tokens, attempt.reasoning_tokens,
        )  # fmt: skip
    return usage


def _result(
    row: Row[Any], envelope: Envelope, usage: Usage, history: History, error: ErrorReport,
    at_ms: int,
) -> Result:  # fmt: skip
    began, message = row.started_at_ms, error.message
    if error.code == "deadline":
        message = late_message(message, history.failures)
    return Result(
        id=row.id,
        status=_STATUS[error.code],
        model=envelope.model,
        usage=usage,
        cost_usd=usd_text(history.cost_pico_usd),
        attempts=history.attempts,
        batch_id=envelope.batch_id,
        submitted_at=rfc3339(envelope.submitted_at_ms),
        started_at=rfc3339(began),
        finished_at=rfc3339(at_ms),
        queued_ms=None if began is None else max(0, began - envelope.submitted_at_ms),
        trace_id=envelope.trace_id,
        metadata=envelope.request.metadata,
        error=replace(error, message=message, attempts=history.failures),
    )
