"""The way of `Client` to Redis and the database: it waits in a thread, and does the rest itself."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence
from functools import partial

from headgate.producer.admin import budgets, cache, health, limits_report
from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import UsageKey
from headgate.producer.client.direct.in_loops import AsyncDirect
from headgate.producer.client.loop_thread import LoopThread
from headgate.producer.client.many.ends import BlockingEnds, blocking_ends
from headgate.producer.client.operations import Operations
from headgate.producer.client.pieces import TextPiece
from headgate.producer.errors import JobTimeout, UnknownJob
from headgate.producer.installation import Installation
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route


class Direct:
    """A BlockingTransport on these operations; see there for its methods."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._waiting = AsyncDirect(operations)
        self._thread = LoopThread()

    def open(self) -> Installation:
        """Open the servers."""
        return self._operations.open()

    def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""
        return self._operations.submit(prompt, fields)

    def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids."""
        return self._operations.submit_many(requests, samples)

    def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get."""
        return self._operations.route(prompt, fields)

    def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in."""
        return self._operations.check(prompt, fields)

    def result(self, job_id: str) -> Result:
        """Return the result as it is now."""
        return self._operations.result(job_id)

    def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now."""
        return self._operations.results(ids)

    def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended."""
        return self._thread.run(self._waiting.ended(job_id, timeout_s))

    def ends(self, timeout_s: float | None) -> BlockingEnds:
        """Return what waits for many jobs together."""
        return blocking_ends(self._thread, self._waiting, timeout_s)

    def stream(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> Iterator[TextPiece]:
        """Yield the pieces of the answer."""
        begin = partial(self._waiting.pieces, job_id, timeout_s, pulse_s, after)
        return self._thread.iterate(begin)

    def status(self, job_id: str) -> Status:
        """Return the status now."""
        return self._operations.status(job_id)

    def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""
        return self._operations.jobs(asked)

    def usage(self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery) -> UsageReport:
        """Return who used what."""
        return self._operations.usage(by, asked)

    def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait for the workers of running ones, all together."""
        cancelled = self._operations.cancel(ids)
        until = time.monotonic() + timeout_s
        return [
            cancelled.ended.get(job_id) or self._stopped(job_id, cancelled.running, until)
            for job_id in ids
        ]

    def _stopped(self, job_id: str, running: Container[str], until: float) -> Result:
        """Wait for the worker of the running job, at most until this time; return the result."""
        if job_id not in running:
            raise UnknownJob(job_id)
        try:
            return self.ended(job_id, max(0.0, until - time.monotonic()))
        except JobTimeout:
            return self.result(job_id)

    def retry(self, job_id: str) -> str:
        """Queue a failed job again."""
        return self._operations.retry(job_id)

    def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""
        return self._operations.report(health.check)

    def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force."""
        return self._operations.report(partial(limits_report.report, pool=pool, tenant=tenant))

    def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""
        return self._operations.report(budgets.report)

    def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""
        return self._operations.report(cache.stats)

    def close(self) -> None:
        """Close all connections."""
        self._thread.close(self._waiting.close_waiters())
        self._operations.close()
