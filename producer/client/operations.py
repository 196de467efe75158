"""The blocking work of both clients: submit jobs and ask for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from redis.exceptions import RedisError
from sqlalchemy import Engine

from headgate.producer.client.arguments import (
    UsageKey,
    checked_settings,
    require_job_id,
    with_prompt,
)
from headgate.producer.client.many.ends import result_of
from headgate.producer.client.waiters import Found, Waiters
from headgate.producer.installation import (
    Installation,
    LazyInstallation,
    is_of_redis,
    record_alone,
)
from headgate.producer.results import cancel as cancelling
from headgate.producer.results import on_record, read
from headgate.producer.results.listing import JobFilters, JobQuery, Listed, list_jobs
from headgate.producer.results.owners import JobOwner, owners
from headgate.producer.submit.admission_check import AdmissionCheck, check
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.submit.prepare import Submitter
from headgate.producer.submit.retry import retry
from headgate.producer.submit.submit import submit, submitter_for
from headgate.producer.submit.submit_each import Outcome, submit_each
from headgate.producer.usage.query import usage
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.producer.waits.find import FindWaits, WaitFinder, no_waits
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.result import Result, Status
from headgate.shared.job.waiting_for import WaitingFor
from headgate.shared.routing.router import Route
from headgate.shared.settings import Settings

log = logging.getLogger("headgate.client")

T = TypeVar("T")


class Operations:
    """The blocking work of a client. Many threads may call every method at once."""

    def __init__(self, settings: Settings | str | None = None) -> None:
        self._lazy = LazyInstallation(checked_settings(settings))
        self._submitter: tuple[Installation, Submitter] | None = None
        self._waits: tuple[Installation, WaitFinder] | None = None

    def open(self) -> Installation:
        """Open the servers if they are not open; raise Unreachable."""
        return self._lazy.get()

    def close(self) -> None:
        """Close all connections."""
        self._lazy.close()

    def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""
        given = with_prompt(prompt, fields)
        with self._lazy.use() as opened:
            at = self._lazy.current(opened, to_write=True)
            return submit(at, self._submitter_of(at), [given], many=False)[0]

    def submit_many(self, requests: Requests, samples: int = 1) -> list[str]:
        """Submit many jobs; return their ids in the order of the requests and their samples."""
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            return submit(at, self._submitter_of(at), requests, many=True, samples=samples)

    def submit_each(self, requests: Sequence[RequestFields], samples: int = 1) -> list[Outcome]:
        """Submit requests of different callers together; return what became of each sample."""
        with self._lazy.use() as opened:
            at = self._lazy.current(opened, to_write=True)
            return submit_each(at, self._submitter_of(at), requests, samples)

    def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get for this request, and why."""
        given = with_prompt(prompt, fields)
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            return self._submitter_of(at).route(given)

    def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in now, and what it would hold."""
        given = with_prompt(prompt, fields)
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            return check(at, self._submitter_of(at), given)

    def report(self, read_report: Callable[[Installation], T]) -> T:
        """Return a report on the installation, by the catalog in force."""
        with self._lazy.use() as opened:
            return read_report(self._lazy.current(opened))

    def result(self, job_id: str) -> Result:
        """Return the result as it is now; without Redis, as the record has it."""
        require_job_id(job_id)
        with self._record() as (engine, find_waits):
            return read.read(engine, job_id, find_waits)

    def job_on_record(self, job_id: str) -> on_record.JobOnRecord:
        """Return the job with its request; raise UnknownJob if it has none any more."""
        with self._record() as (engine, find_waits):
            return on_record.read_job(engine, job_id, find_waits)

    def shed(self, ids: Sequence[str]) -> None:
        """Make prompts and answers of these jobs go; of those that run, once they have ended."""
        with self._lazy.use() as at:
            on_record.shed(at.engine, at.redis, at.keys, ids)

    def owners(self, ids: Sequence[str]) -> dict[str, JobOwner]:
        """Return whose jobs these are, by id; unknown ids are left out."""
        with self._record() as (engine, _):
            return owners(engine, ids)

    def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now, in order; raise for the first id that has none."""
        found = self.read_many(ids)
        return [result_of(found[job_id]) for job_id in ids]

    def read_many(self, ids: Sequence[str]) -> Found:
        """Return results as they are now by id, or why there is none."""
        with self._record() as (engine, find_waits):
            return read.read_many(engine, list(dict.fromkeys(ids)), find_waits)

    def end_or_wait(self, job_id: str) -> Result | WaitingFor | None:
        """Return the result if the job has ended, else what it waits for; None if it runs."""
        with self._lazy.use() as at:
            return read.end_or_wait(at.engine, job_id, self._waits_of(at))

    def status(self, job_id: str) -> Status:
        """Return the status now, also if the result has expired."""
        require_job_id(job_id)
        with self._record() as (engine, find_waits):
            return read.status(engine, job_id, find_waits)

    def look(self, ids: Sequence[str]) -> Found:
        """Return the results of those of the jobs that have ended."""
        with self._lazy.use() as at:
            return read.look(at.engine, ids)

    def waiters(self, at: Installation) -> Waiters:
        """Return Waiters for the running event loop; call it there."""

        async def look(ids: Sequence[str]) -> Found:
            return await asyncio.to_thread(self.look, ids)

        async def last_look(job_id: str) -> Result | WaitingFor | None:
            return await asyncio.to_thread(self.end_or_wait, job_id)

        return Waiters(look, last_look, at.servers.async_redis_client(), at.keys)

    def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first; without Redis, as the record has them."""
        query = JobQuery(**asked)
        with self._record() as (engine, find_waits):
            return list_jobs(engine, query, find_waits)

    def usage(self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery) -> UsageReport:
        """Return who used what. It reads the database only, so it works without Redis."""
        if not isinstance(by, str | Sequence):
            raise InvalidRequest("by", by, 'give a name such as "tenant", or a list of names')
        with record_alone(self._lazy.settings) as engine:
            return usage(engine, by, **asked)

    def cancel(self, ids: Sequence[str]) -> cancelling.Cancelled:
        """Cancel jobs; those that run are only marked for their workers."""
        for job_id in ids:
            require_job_id(job_id)
        try:
            with self._lazy.use() as at:
                ttl_s = at.settings.result_ttl_s
                return cancelling.cancel(at.engine, at.redis, at.keys, ids, result_ttl_s=ttl_s)
        except Unreachable as error:
            if isinstance(error.__cause__, RedisError):
                remedy = "the request to cancel is on record: cancel again once Redis answers"
                raise Unreachable(error.server, error.reason, remedy) from error.__cause__
            raise

    def retry(self, job_id: str) -> str:
        """Queue a failed job again under its id; return the id."""
        require_job_id(job_id)
        with self._lazy.use() as opened:
            at = self._lazy.current(opened)
            done = retry(at, self._submitter_of(at), [job_id])
            if job_id in done.refused:
                read.status(at.engine, job_id)  # raises UnknownJob
                raise InvalidRequest("job_id", job_id, done.refused[job_id])
        return job_id

    def current(self) -> Installation:
        """Return the installation with the catalog in force; it is one round trip to Redis."""
        with self._lazy.use() as opened:
            return self._lazy.current(opened)

    @contextmanager
    def _record(self) -> Iterator[tuple[Engine, FindWaits]]:
        """Give the record, and what finds the waits of its jobs: nothing if Redis is away."""
        try:
            self._lazy.get()
        except Unreachable as error:
            if not is_of_redis(error):
                raise
            log.warning("%s; only the record is read, without what jobs wait for", error)
            with record_alone(self._lazy.settings) as engine:
                yield engine, no_waits
            return
        with self._lazy.use() as at:
            yield at.engine, self._waits_of(at)

    def _waits_of(self, at: Installation) -> WaitFinder:
        """Return the finder of waits of this installation."""
        made = self._waits
        if made is None or made[0] is not at:
            made = self._waits = at, WaitFinder(at.redis, at.keys)
        return made[1]

    def _submitter_of(self, at: Installation) -> Submitter:
        """Return the submitter of this installation's catalog; make it if the catalog is new."""
        made = self._submitter
        if made is None or made[0] is not at:  # two threads may both make one: no harm
            made = self._submitter = at, submitter_for(at)
        return made[1]
