"""Cancel jobs: waiting jobs end at once, running jobs are stopped by their workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import redis
from sqlalchemy import Connection, Engine, select, update

from headgate.producer.results.open_jobs import IDS_PER_QUERY
from headgate.producer.results.read import without_answer
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import writing
from headgate.shared.database.finish import end_waiting, publish
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED, ErrorReport, Result
from headgate.shared.job.result_text import decode_result

CANCELLED_WAITING = ErrorReport("cancelled", "cancelled by the caller while it waited", False)

REQUEST_KEPT_MS = 600_000
"""How long the request to cancel a running job waits for the job's worker to see it."""


@dataclass(slots=True)
class Cancelled:
    """What became of the jobs; ids that are in neither are unknown.

    `ended`: jobs that were cancelled now or had ended before; of an expired result only its status
    and times. `running`: jobs that their workers will stop; workers look every second.
    """

    ended: dict[str, Result] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)


def cancel(
    engine: Engine, client: redis.Redis, keys: Keys, ids: Sequence[str], *, result_ttl_s: int
) -> Cancelled:
    """Cancel jobs that wait and mark jobs that run; safe to repeat after an error.

    A message left on the broker does no harm: its claim fails because the job has ended.
    Raises RedisError and DBAPIError.
    """
    cancelled = Cancelled()
    for first in range(0, len(ids), IDS_PER_QUERY):
        with writing(engine) as connection:
            chunk = _cancel_rows(connection, sorted(ids[first : first + IDS_PER_QUERY]))
        _notify(client, keys, chunk, result_ttl_s)
        cancelled.ended |= chunk.ended
        cancelled.running |= chunk.running
    return cancelled


def _cancel_rows(connection: Connection, ids: Sequence[str]) -> Cancelled:
    # Rows are locked in the order of their ids, so two that cancel the same jobs do not deadlock.
    query = select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
    cancelled = Cancelled()
    waiting = []
    for row in connection.execute(query).all():
        if row.status in ENDED:
            known = row.result and decode_result(row.result)
            cancelled.ended[row.id] = known or without_answer(row)
        elif row.status == "running":
            cancelled.running.add(row.id)
        else:
            waiting.append((row, Envelope.decode(orjson.loads(row.envelope))))
    if cancelled.running:
        marked = update(jobs).where(jobs.c.id.in_(cancelled.running)).values(cancel_wanted=True)
        connection.execute(marked)
    for result in end_waiting(connection, waiting, CANCELLED_WAITING, at_ms=now_ms()):
        cancelled.ended[result.id] = result
    return cancelled


def _notify(client: redis.Redis, keys: Keys, cancelled: Cancelled, result_ttl_s: int) -> None:
    """Notify the programs that wait for the jobs and the workers that run them."""
    # Also of jobs that were cancelled before: an earlier call may have failed right here.
    ended = [r for r in cancelled.ended.values() if r.status == "cancelled" and r.error]
    publish(client, keys, ended, result_ttl_s=result_ttl_s)
    with client.pipeline(transaction=False) as pipe:
        if cancelled.running:
            seconds, micros = client.time()
            server_ms = seconds * 1000 + micros // 1000
            pipe.zremrangebyscore(keys.cancels(), "-inf", server_ms - REQUEST_KEPT_MS)
            pipe.zadd(keys.cancels(), dict.fromkeys(cancelled.running, server_ms))
            pipe.pexpire(keys.cancels(), REQUEST_KEPT_MS)
            # A job that its worker has just deferred is due now, so that it ends.
            pipe.zadd(keys.due(), dict.fromkeys(cancelled.running, 0), xx=True, lt=True)
        pipe.execute()
