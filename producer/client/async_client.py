"""The client for asyncio programs: the same methods as `Client`, as coroutines.

It works on the database and on Redis with blocking connections in threads. Only waiting is async,
so that thousands wait at the cost of one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Container, Sequence
from functools import partial
from typing import Self, Unpack

from headgate.producer.admin import budgets, cache, health, limits_report
from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import UsageKey, timeout_of
from headgate.producer.client.client import CANCEL_WAIT_S
from headgate.producer.client.handle import AsyncJob
from headgate.producer.client.operations import Operations
from headgate.producer.client.pieces import TextPiece
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
from headgate.shared.settings import Settings


class AsyncClient:
    """Submits jobs and waits for their results, in an asyncio program.

    settings: Settings, such as `Settings(redis_url="redis://...")`, or the URL of a Redis. Default:
        from the environment.

    The client opens its servers at the first use. Use it as an async context manager, or call
    `close`. Many tasks may use one client.
    """

    def __init__(self, settings: Settings | str | None = None) -> None:
        self._operations = Operations(settings)
        self._waiters: Waiters | None = None

    async def submit(
        self, prompt: str | None = None, /, **fields: Unpack[RequestFields]
    ) -> AsyncJob:
        """Submit a job: put it on record and on its queue.

            job = await client.submit("Summarise ...", model="gpt-4o-mini")
            print((await job.result(timeout_s=30)).content)

        prompt: the text of one user message; the same as the field `prompt`.
        fields: the fields of a request; see RequestFields for their meaning and units.

        Returns the AsyncJob. Raises what `Client.submit` raises.
        """
        return AsyncJob(await asyncio.to_thread(self._operations.submit, prompt, fields), self)

    async def submit_many(self, requests: Requests, *, samples: int = 1) -> list[str]:
        """Submit many jobs at once; return their ids in order. See `Client.submit_many`."""
        return await asyncio.to_thread(self._operations.submit_many, requests, samples)

    async def route(self, prompt: str | None = None, /, **fields: Unpack[RequestFields]) -> Route:
        """Return which model a request for "auto" would get now, and why; see `Client.route`."""
        return await asyncio.to_thread(self._operations.route, prompt, fields)

    async def result(
        self,
        job_id: str,
        *,
        wait: bool = False,
        timeout_s: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # Celery's name, an alias
    ) -> Result:
        """Return the result of a job: as it is now, or once the job has ended.

        wait: wait until the job has ended.
        timeout_s: how many seconds to wait at most; implies `wait`. None: no limit. `timeout` is
            the same.

        Raises UnknownJob, ResultExpired, JobTimeout and Unreachable; see `Client.result`.
        """
        timeout_s = timeout_of(timeout_s, timeout)
        if not wait and timeout_s is None:
            return await asyncio.to_thread(self._operations.result, job_id)
        return await (await self._waiting()).ended(job_id, timeout_s)

    async def stream(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        pulse_s: float | None = None,
        after: int | str = 0,
    ) -> AsyncGenerator[TextPiece, None]:
        """Yield the text of the answer piece by piece; see `Client.stream`.

        timeout_s: how many seconds the whole stream may take. None: no limit.
        pulse_s: yield an empty text after so many seconds without a piece. None: never.
        after: the `after` of the last piece that a reader has, or how many characters it has.
        """
        async with TextStream(await self._waiting(), job_id, timeout_s, pulse_s, after) as pieces:
            while (piece := await pieces.next()) is not None:
                yield piece

    async def status(self, job_id: str) -> Status:
        """Return the status of a job, also if its result has expired; raise UnknownJob."""
        return await asyncio.to_thread(self._operations.status, job_id)

    async def jobs(self, **asked: Unpack[JobFilters]) -> list[Listed]:
        """Return jobs, the newest first; see `Client.jobs`."""
        return await asyncio.to_thread(self._operations.jobs, asked)

    async def usage(
        self, by: UsageKey | str | Sequence[UsageKey] = (), **asked: Unpack[UsageQuery]
    ) -> UsageReport:
        """Return who used what, of jobs that have ended; see `Client.usage`."""
        return await asyncio.to_thread(self._operations.usage, by, asked)

    async def cancel(self, job_id: str, *, timeout_s: float = CANCEL_WAIT_S) -> Result:
        """Cancel a job that waits or runs; return its result. See `Client.cancel`.

        timeout_s: how many seconds to wait for the worker of a running job.
        """
        return (await self.cancel_many([job_id], timeout_s=timeout_s))[0]

    async def cancel_many(
        self, job_ids: Sequence[str], *, timeout_s: float = CANCEL_WAIT_S
    ) -> list[Result]:
        """Cancel jobs that wait or run; return their results. See `Client.cancel_many`.

        timeout_s: how many seconds to wait for the workers of running jobs, all together.
        """
        cancelled = await asyncio.to_thread(self._operations.cancel, job_ids)
        until = time.monotonic() + timeout_s
        return [
            cancelled.ended.get(job_id) or await self._stopped(job_id, cancelled.running, until)
            for job_id in job_ids
        ]

    async def _stopped(self, job_id: str, running: Container[str], until: float) -> Result:
        """Wait for the worker of the running job, at most until this time; return the result."""
        if job_id not in running:
            raise UnknownJob(job_id)
        try:
            return await self.result(job_id, timeout_s=max(0.0, until - time.monotonic()))
        except JobTimeout:
            return await self.result(job_id)

    async def check(
        self, prompt: str | None = None, /, **fields: Unpack[RequestFields]
    ) -> AdmissionCheck:
        """Return whether a request would be let in now; see `Client.check`."""
        return await asyncio.to_thread(self._operations.check, prompt, fields)

    async def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers; see `Client.health`."""
        return await asyncio.to_thread(self._operations.report, health.check)

    async def limits(self, *, pool: str | None = None, tenant: str | None = None) -> LimitsReport:
        """Return the limits in force and the jobs that wait for them; see `Client.limits`."""
        asked = partial(limits_report.report, pool=pool, tenant=tenant)
        return await asyncio.to_thread(self._operations.report, asked)

    async def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent, today and this month (UTC)."""
        return await asyncio.to_thread(self._operations.report, budgets.report)

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is, and what it has saved."""
        return await asyncio.to_thread(self._operations.report, cache.stats)

    async def retry(self, job_id: str) -> AsyncJob:
        """Queue a job that failed or expired again, under its id. See `Client.retry`."""
        return AsyncJob(await asyncio.to_thread(self._operations.retry, job_id), self)

    async def close(self) -> None:
        """Close all connections. Whoever still waits is cancelled."""
        waiters, self._waiters = self._waiters, None
        if waiters is not None and waiters.loop is asyncio.get_running_loop():
            await waiters.close()
        await asyncio.to_thread(self._operations.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _waiting(self) -> Waiters:
        """Return the waiters of the running event loop; make them if the loop is a new one."""
        made = self._waiters
        if made is not None and made.loop is asyncio.get_running_loop():
            return made
        at: Installation = await asyncio.to_thread(self._operations.open)
        if self._waiters is None or self._waiters.loop is not asyncio.get_running_loop():
            self._waiters = self._operations.waiters(at)
        return self._waiters
