"""Cancels jobs: those that wait end at once, those that run are stopped by their workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import redis
from sqlalchemy import Connection, Engine, select, update

from headgate.producer.results.read import IDS_PER_QUERY, standing
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import writing
from headgate.shared.database.finish import end_waiting, publish
from headgate.shared.database.tables import jobs
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED, ErrorReport, Result

WHY = ErrorReport("cancelled", "cancelled by the caller while it waited", False)

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
            waiting.append((row, Envelope.decode(orjson.loads(row.envelope))))
    if became.running:
        marked = update(jobs).where(jobs.c.id.in_(became.running)).values(cancel_wanted=True)
        connection.execute(marked)
    for result in end_waiting(connection, waiting, WHY, at_ms=now_ms()):
        became.ended[result.id] = result
    return became


def _tell(client: redis.Redis, keys: Keys, became: Cancelled, result_ttl_s: int) -> None:
    """Programs that wait for the jobs have been told, and workers that run them."""
    # Also of one that was cancelled before: an earlier call may have failed right here.
    cancelled = [r for r in became.ended.values() if r.status == "cancelled" and r.error]
    publish(client, keys, cancelled, result_ttl_s=result_ttl_s)
    with client.pipeline(transaction=False) as pipe:
        if became.running:
            seconds, micros = client.time()
            server_ms = seconds * 1000 + micros // 1000
            pipe.zremrangebyscore(keys.cancels(), "-inf", server_ms - WISH_KEPT_MS)
            pipe.zadd(keys.cancels(), dict.fromkeys(became.running, server_ms))
            pipe.pexpire(keys.cancels(), WISH_KEPT_MS)
            # One that its worker has just put off comes back now, to end.
            pipe.zadd(keys.due(), dict.fromkeys(became.running, 0), xx=True, lt=True)
        pipe.execute()
