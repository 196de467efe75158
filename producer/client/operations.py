"""Where jobs are handed in and asked for, blocking; both clients stand on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from redis.exceptions import RedisError

from headgate.producer.client.waiters import Found
from headgate.producer.installation import Installation, LazyInstallation, record_alone
from headgate.producer.results import cancel as cancelling
from headgate.producer.results import read
from headgate.producer.results.read import Listed
from headgate.producer.results.waiting_jobs import waits_on
from headgate.producer.submit.submit import _submitted
from headgate.producer.usage.query import usage
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.request import Request
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route
from headgate.shared.settings import Settings

Requests = Iterable[str | Mapping[str, Any] | Request]


class Operations:
    """The blocking work of a client; every method may be called by many threads at once."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._lazy = LazyInstallation(settings)

    def open(self) -> Installation:
        """The servers, opened if they were not; raises Unreachable."""
        return self._lazy.get()

    def close(self) -> None:
        """All connections are closed."""
        self._lazy.close()

    def submit(self, prompt: str | None, fields: dict[str, Any]) -> str:
        """The id of a job that is on record and queued; raises TierLimit if it asks for that."""
        if prompt is not None:
            if "prompt" in fields:
                raise InvalidRequest("prompt", fields["prompt"], "is given twice; give it once")
            fields = {"prompt": prompt, **fields}
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            return _submitted(at, [at.submitter.prepare(fields)], numbered=False)[0]

    def route(self, prompt: str | None, fields: dict[str, Any]) -> Route:
        """Which model `auto` would get for this request, and why."""
        if prompt is not None:
            fields = {"prompt": prompt, **fields}
        with self._lazy.use() as opened:
            return self._lazy.current(opened).submitter.route(fields)

    def submit_many(self, requests: Requests) -> list[str]:
        """The ids of jobs that are on record and queued, in the order of the requests."""
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            return _submitted(at, at.submitter.prepare_many(requests), numbered=True)

    def result(self, job_id: str) -> Result:
        """The result as it is now."""
        with self._lazy.use() as at:
            return read.read(at.engine, job_id, waits_on(at.redis, at.keys))

    def status(self, job_id: str) -> Status:
        """The status now, also of a job whose result has expired."""
        with self._lazy.use() as at:
            return read.status(at.engine, job_id, waits_on(at.redis, at.keys))

    def look(self, ids: Sequence[str]) -> Found:
        """What can be said for good about the jobs."""
        with self._lazy.use() as at:
            return read.look(at.engine, ids)

    def jobs(
        self,
        status: str | None,
        tenant: str | None,
        since: datetime | timedelta | None,
        limit: int,
    ) -> list[Listed]:
        """The newest jobs first."""
        with self._lazy.use() as at:
            return read.list_jobs(
                at.engine, status=status, tenant=tenant, since=since, limit=limit,
                waits=waits_on(at.redis, at.keys),
            )  # fmt: skip

    def usage(self, by: str | Sequence[str], asked: UsageQuery) -> UsageReport:
        """What was used, from the record alone: also while Redis is away."""
        with record_alone(self._lazy.settings) as engine:
            return usage(engine, by, **asked)

    def cancel(self, ids: Sequence[str]) -> cancelling.Cancelled:
        """What became of the jobs; those that run are only marked."""
        try:
            with self._lazy.use() as at:
                ttl_s = at.settings.result_ttl_s
                return cancelling.cancel(at.engine, at.redis, at.keys, ids, result_ttl_s=ttl_s)
        except Unreachable as error:
            if isinstance(error.__cause__, RedisError):
                remedy = "the wish is on record: cancel again once Redis answers"
                raise Unreachable(error.server, error.reason, remedy) from error.__cause__
            raise
