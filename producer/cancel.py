"""Cancels jobs: those that wait end at once, those that run are stopped by their workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from sqlalchemy import Connection, Engine, Row, bindparam, insert, select, update

from producer.results import IDS_PER_QUERY, standing
from shared import prices
from shared.database import writing
from shared.envelope import (
    ENDED,
    Envelope,
    ErrorReport,
    FailedAttempt,
    Result,
    Usage,
    now_ms,
    rfc3339,
)
from shared.keys import Keys
from shared.results import audit_row, celery_record
from shared.tables import attempts, audit, jobs

WISH_KEPT_MS = 600_000
"""How long a wish to cancel a running job waits for its worker to see it."""


@dataclass(slots=True)
class Cancelled:
    """What became of the jobs; ids that are in neither are unknown."""

    ended: dict[str, Result] = field(default_factory=dict)
    """Cancelled now, or ended before; of an expired result only its status and times."""
    running: list[str] = field(default_factory=list)
    """To be stopped by their workers, which look every second."""


def cancel(
    engine: Engine, client: redis.Redis, keys: Keys, ids: Sequence[str], *, result_ttl_s: int
) -> Cancelled:
    """Jobs that wait are cancelled, those that run are marked; safe to repeat after an error.

    A message left on the broker is harmless: the claim sees that its job has ended.
    """
    became = Cancelled()
    for first in range(0, len(ids), IDS_PER_QUERY):
        with writing(engine) as connection:
            chunk = _cancel_rows(connection, sorted(ids[first : first + IDS_PER_QUERY]))
        _tell(client, keys, chunk, result_ttl_s)
        became.ended |= chunk.ended
        became.running += chunk.running
    return became


def _cancel_rows(connection: Connection, ids: Sequence[str]) -> Cancelled:
    # Rows are locked in the order of their ids, so that two who cancel the same do not deadlock.
    query = select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    became = Cancelled()
    waiting = []
    for row in connection.execute(query).all():
        if row.status in ENDED:
            known = row.result and Result.from_json(orjson.loads(row.result))
            became.ended[row.id] = known or standing(row)
        elif row.status == "running":
            became.running.append(row.id)
        else:
            waiting.append(row)
    if became.running:
        marked = update(jobs).where(jobs.c.id.in_(became.running)).values(cancel_wanted=True)
        connection.execute(marked)
    if waiting:
        became.ended |= _end(connection, waiting)
    return became


def _end(connection: Connection, waiting: Sequence[Row[Any]]) -> dict[str, Result]:
    """The rows are cancelled, with results and audit lines; their fences keep late claims out."""
    at_ms = now_ms()
    tried = _attempts(connection, [row.id for row in waiting if row.fence])
    results, lines, changes = {}, [], []
    for row in waiting:
        envelope = Envelope.decode(orjson.loads(row.envelope))
        result, cost, unknown = _cancelled(row, envelope, tried[row.id], at_ms)
        results[row.id] = result
        changes.append({"job": row.id, "result": orjson.dumps(result.as_json()).decode()})
        lines.append(
            audit_row(
                envelope,
                result,
                cost_pico_usd=cost,
                unknown_attempts=unknown,
                started_at_ms=row.started_at_ms,
                finished_at_ms=at_ms,
            )
        )
    ended = update(jobs).where(jobs.c.id == bindparam("job"))
    ended = ended.values(
        status="cancelled", fence=jobs.c.fence + 1, worker=None, cancel_wanted=True,
        retry_at_ms=None, finished_at_ms=at_ms, result=bindparam("result"),
    )  # fmt: skip
    connection.execute(ended, changes)
    connection.execute(insert(audit), lines)
    return results


def _attempts(connection: Connection, ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    if ids:
        order = (attempts.c.job_id, attempts.c.fence, attempts.c.n)
        query = select(attempts).where(attempts.c.job_id.in_(ids)).order_by(*order)
        for row in connection.execute(query):
            found[row.job_id].append(row)
    return found


def _cancelled(
    row: Row[Any], envelope: Envelope, tried: Sequence[Row[Any]], at_ms: int
) -> tuple[Result, int | None, int]:
    """The result, what all attempts cost in pico-USD if that is known, how many are unknown."""
    usage, cost, unknown = Usage(), 0, 0
    priced, failed = True, []
    for attempt in tried:
        usage += Usage(
            attempt.input_tokens, attempt.cached_input_tokens, attempt.cache_write_tokens,
            attempt.output_tokens, attempt.reasoning_tokens,
        )  # fmt: skip
        cost += attempt.cost_pico_usd or 0
        if attempt.state in ("open", "unknown"):
            unknown += 1
        elif attempt.cost_pico_usd is None:
            priced = False
        if attempt.state != "answered":
            # As a worker lists them: one with no code was cut off when its worker died.
            message = attempt.message or "a worker died while the provider was answering"
            failed.append(
                FailedAttempt(
                    attempt.model, attempt.code or "internal", message, attempt.http_status,
                    attempt.waited_ms,
                )
            )  # fmt: skip
    began = row.started_at_ms
    result = Result(
        id=row.id,
        status="cancelled",
        model=envelope.model,
        usage=usage,
        cost_usd=prices.text(prices.from_pico(cost)) if priced else None,
        attempts=len(tried),
        batch_id=envelope.batch_id,
        submitted_at=rfc3339(envelope.submitted_at_ms),
        started_at=rfc3339(began),
        finished_at=rfc3339(at_ms),
        queued_ms=None if began is None else max(0, began - envelope.submitted_at_ms),
        trace_id=envelope.trace_id,
        metadata=envelope.request.metadata,
        error=ErrorReport("cancelled", "cancelled by the caller while it waited", False, failed),
    )
    return result, cost if priced else None, unknown


def _tell(client: redis.Redis, keys: Keys, became: Cancelled, result_ttl_s: int) -> None:
    """Programs that wait for the jobs have been told, and workers that run them."""
    with client.pipeline(transaction=False) as pipe:
        for result in became.ended.values():
            # Also of one that was cancelled before: an earlier call may have failed right here.
            if result.status == "cancelled" and result.error:
                record = celery_record(result)
                pipe.set(keys.result(result.id), record, ex=result_ttl_s)
                pipe.publish(keys.result(result.id), record)
        if became.running:
            seconds, micros = client.time()
            server_ms = seconds * 1000 + micros // 1000
            pipe.zremrangebyscore(keys.cancels(), "-inf", server_ms - WISH_KEPT_MS)
            pipe.zadd(keys.cancels(), dict.fromkeys(became.running, server_ms))
            pipe.pexpire(keys.cancels(), WISH_KEPT_MS)
            # One that its worker has just put off comes back now, to end.
            pipe.zadd(keys.due(), dict.fromkeys(became.running, 0), xx=True, lt=True)
        pipe.execute()
