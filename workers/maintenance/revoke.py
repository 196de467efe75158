"""Carries out Celery's `revoke` for jobs that no worker runs, whatever the worker's memory is.

Each worker that gets the command does this; it is safe to do it several times. A job that runs is
left alone: the worker that runs it stops it if it was told to terminate it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis
from sqlalchemy import Engine, select

from headgate.shared.broker import dead_letters, script
from headgate.shared.broker.results import celery_record
from headgate.shared.database.engine import writing
from headgate.shared.database.finish import end_waiting, publish
from headgate.shared.database.tables import audit, jobs
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import WAITING, ErrorReport, Result
from headgate.shared.servers.servers import Servers
from headgate.workers.clients import job_log
from headgate.workers.maintenance.recover import readable

WHY_REVOKED = ErrorReport("cancelled", "revoked through Celery while it waited", False)


class Revoke:
    """Cancels jobs that wait, by the ids of their tasks."""

    def __init__(
        self, servers: Servers, engine: Engine, result_ttl_s: int, clock_ms: Callable[[], int]
    ) -> None:
        self._servers = servers
        self._engine = engine
        self._result_ttl_s = result_ttl_s
        self._clock_ms = clock_ms

    def __call__(self, ids: Sequence[str]) -> None:
        """Cancel those of these jobs that wait. Raises RedisError and DBAPIError.

        A message that no worker has taken yet has no row: Celery's backend says REVOKED, and the
        worker that gets it cancels it.
        """
        client, keys = self._servers.redis_client(), self._servers.keys
        try:
            known, ended = self._end(ids)
            publish(client, keys, ended, result_ttl_s=self._result_ttl_s)
            self._tell(client, [job_id for job_id in ids if job_id not in known])
        finally:
            client.close()

    def _end(self, ids: Sequence[str]) -> tuple[set[str], list[Result]]:
        """Cancel the jobs that wait; return which of the ids are on record, and the new results."""
        with writing(self._engine) as connection:
            query = select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id).with_for_update()
            rows = connection.execute(query).all()
            pruned = connection.scalars(select(audit.c.job_id).where(audit.c.job_id.in_(ids)))
            known = {row.id for row in rows} | {*pruned}
            found = {envelope.id: envelope for envelope, _ in readable(rows)}
            waiting = [
                (row, found[row.id]) for row in rows if row.id in found and row.status in WAITING
            ]
            results = end_waiting(connection, waiting, WHY_REVOKED, at_ms=self._clock_ms())
        for result in results:
            job_log.log_end(found[result.id], result)
        return known, results

    def _tell(self, client: redis.Redis, ids: Sequence[str]) -> None:
        """Let Celery's backend say REVOKED of these messages, but for those that a worker has."""
        keys = self._servers.keys
        owners: Any = client.hmget(keys.owners(), ids) if ids else ()
        finished_at = rfc3339(self._clock_ms())
        for job_id, owner in zip(ids, owners, strict=True):
            if owner is None:
                result = Result(job_id, "cancelled", "", finished_at=finished_at, error=WHY_REVOKED)
                command = dead_letters.answer(
                    keys, job_id, celery_record(result), self._result_ttl_s
                )
                script.run(client, command)
