"""How a job ends that nobody runs: on record, with its audit line, then for all who wait for it.

A producer ends so what it cancels, the sweep what has waited past its deadline. A message that is
left on the broker is harmless: the claim sees that its job has ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import orjson
import redis
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import celery_record
from headgate.shared.cost import price
from headgate.shared.database.rows import audit_row
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.errors import ErrorCode
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.history import history_of
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import ErrorReport, Result, Status, Usage

FORGOTTEN_PER_CALL = 100
"""Jobs that leave their lines in one call: each has its message read."""

_STATUS: dict[ErrorCode, Status] = {"cancelled": "cancelled", "deadline": "expired"}


def end_waiting(
    connection: Connection,
    waiting: Iterable[tuple[Row[Any], Envelope]],
    error: ErrorReport,
    *,
    at_ms: int,
) -> list[Result]:
    """The jobs of these rows have ended with this error; their fences keep late claims out.

    The rows are those of queued and deferred jobs, locked by this transaction. What earlier
    attempts cost counts, and the list of them is added to the error.
    """
    waiting = list(waiting)
    tried = _attempts(connection, [row.id for row, _ in waiting if row.fence])
    results, lines, changes = [], [], []
    for row, envelope in waiting:
        result, cost, unknown = _result(row, envelope, tried[row.id], error, at_ms)
        results.append(result)
        changes.append({"job": row.id, "text": orjson.dumps(result.as_json()).decode()})
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
    if results:
        ended = update(jobs).where(jobs.c.id == bindparam("job"))
        ended = ended.values(
            status=_STATUS[error.code], fence=jobs.c.fence + 1, worker=None, retry_at_ms=None,
            finished_at_ms=at_ms, result=bindparam("text"),
        )  # fmt: skip
        if error.code == "cancelled":
            ended = ended.values(cancel_wanted=True)
        connection.execute(ended, changes)
        connection.execute(insert(audit), lines)
    return results


def tell(client: redis.Redis, keys: Keys, results: Sequence[Result], *, result_ttl_s: int) -> None:
    """Programs that wait for the jobs have been told, and the jobs have left their lines."""
    with client.pipeline(transaction=False) as pipe:
        for result in results:
            record = celery_record(result)
            pipe.set(keys.result(result.id), record, ex=result_ttl_s)
            pipe.publish(keys.result(result.id), record)
        pipe.execute()
    rest = iter([result.id for result in results])
    while chunk := list(islice(rest, FORGOTTEN_PER_CALL)):
        script.run(client, broker_jobs.forget(keys, chunk))


def _attempts(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    if ids:
        order = (attempts.c.job_id, attempts.c.fence, attempts.c.n)
        query = select(attempts).where(attempts.c.job_id.in_(ids)).order_by(*order)
        for row in connection.execute(query):
            found[row.job_id].append(row)
    return found


def _result(
    row: Row[Any], envelope: Envelope, tried: Sequence[Any], error: ErrorReport, at_ms: int
) -> tuple[Result, int | None, int]:
    """The result, what all attempts cost in pico-USD if that is known, how many are unknown."""
    usage = Usage()
    for attempt in tried:
        usage += Usage(
            attempt.input_tokens, attempt.cached_input_tokens, attempt.cache_write_tokens,
            attempt.output_tokens, attempt.reasoning_tokens,
        )  # fmt: skip
    history = history_of(tried, share_pico_usd=row.share_pico_usd or 0)
    cost = history.cost_pico_usd
    began = row.started_at_ms
    result = Result(
        id=row.id,
        status=_STATUS[error.code],
        model=envelope.model,
        usage=usage,
        cost_usd=None if cost is None else price.text(price.from_pico(cost)),
        attempts=history.attempts,
        batch_id=envelope.batch_id,
        submitted_at=rfc3339(envelope.submitted_at_ms),
        started_at=rfc3339(began),
        finished_at=rfc3339(at_ms),
        queued_ms=None if began is None else max(0, began - envelope.submitted_at_ms),
        trace_id=envelope.trace_id,
        metadata=envelope.request.metadata,
        error=replace(error, attempts=history.failures),
    )
    return result, cost, len(history.unknown_models)
