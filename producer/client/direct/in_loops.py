"""The way of `AsyncClient` to Redis and the database.

It works with blocking connections in threads. Only waiting is async, so that thousands wait at the
cost of one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Sequence
from functools import partial

from headgate.producer.admin import budgets, cache, health, limits_report
from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import UsageKey
from headgate.producer.client.operations import Operations
from headgate.producer.client.per_loop import PerLoop
from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import JobTimeout, UnknownJob
from headgate.producer.installation import Installation
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route


class AsyncDirect:
    """An AsyncTransport on these operations; see there for its methods."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._waiters: PerLoop[Waiters] = PerLoop()

    async def open(self) -> Installation:
        """Open the servers."""
        return await asyncio.to_thread(self._operations.open)

    async def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""
        return await asyncio.to_thread(self._operations.submit, prompt, fields)

    async def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids."""
        return await asyncio.to_thread(self._operations.submit_many, requests, samples)

    async def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get."""
        return await asyncio.to_thread(self._operations.route, prompt, fields)

    async def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in."""
        return await asyncio.to_thread(self._operations.check, prompt, fields)

    async def result(self, job_id: str) -> Result:
        """Return the result as it is now."""
        return await asyncio.to_thread(self._operations.result, job_id)

    async def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now."""
        return await asyncio.to_thread(self._operations.results, ids)

    async def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended."""
        return await (await self._waiting()).ended(job_id, timeout_s)

    async def pieces(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> TextStream:
        """Begin to read the answer of a job."""
        reading = TextStream(await self._waiting(), job_id, timeout_s, pulse_s, after)
        await reading.open()
        return reading

    async def status(self, job_id: str) -> Status:
        """Return the status now."""
        return await asyncio.to_thread(self._operations.status, job_id)

    async def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""
        return await asyncio.to_thread(self._operations.jobs, asked)

    async def usage(
        self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery
    ) -> UsageReport:
        """Return who used what."""
        return await asyncio.to_thread(self._operations.usage, by, asked)

    async def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait for the workers of running ones, all together."""
        cancelled = await asyncio.to_thread(self._operations.cancel, ids)
        until = time.monotonic() + timeout_s
        return [
            cancelled.ended.get(job_id) or await self._stopped(job_id, cancelled.running, until)
            for job_id in ids
        ]

    async def _stopped(self, job_id: str, running: Container[str], until: float) -> Result:
        """Wait for the worker of the running job, at most until this time; return the result."""
        if job_id not in running:
            raise UnknownJob(job_id)
        try:
            return await self.ended(job_id, max(0.0, until - time.monotonic()))
        except JobTimeout:
            return await self.result(job_id)

    async def retry(self, job_id: str) -> str:
        """Queue a failed job again."""
        return await asyncio.to_thread(self._operations.retry, job_id)

    async def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""
        return await asyncio.to_thread(self._operations.report, health.check)

    async def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force."""
        asked = partial(limits_report.report, pool=pool, tenant=tenant)
        return await asyncio.to_thread(self._operations.report, asked)

    async def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""
        return await asyncio.to_thread(self._operations.report, budgets.report)

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""
        return await asyncio.to_thread(self._operations.report, cache.stats)

    async def close(self) -> None:
        """Close all connections."""
        await self.close_waiters()
        await asyncio.to_thread(self._operations.close)

    async def close_waiters(self) -> None:
        """End all waits."""
        await self._waiters.close()

    async def _waiting(self) -> Waiters:
        """Return the waiters of the running event loop; make them if the loop is a new one."""
        made = self._waiters.get()
        if made is None:
            at = await asyncio.to_thread(self._operations.open)
            made = self._waiters.get() or self._waiters.add(self._operations.waiters(at))
        return made
