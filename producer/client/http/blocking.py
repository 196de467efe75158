"""The way of `Client` to a gateway: everything is done in the loop of one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import UsageKey
from headgate.producer.client.http.in_loops import AsyncHttp
from headgate.producer.client.http.job_bodies import sliced
from headgate.producer.client.loop_thread import LoopThread
from headgate.producer.client.many.ends import BlockingEnds, blocking_ends
from headgate.producer.client.pieces import TextPiece
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route


class Http:
    """A BlockingTransport over an asynchronous one; see there for its methods."""

    def __init__(self, calls: AsyncHttp) -> None:
        self._calls = calls
        self._thread = LoopThread()

    def open(self) -> None:
        """See whether the gateway answers."""
        self._thread.run(self._calls.open())

    def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""
        return self._thread.run(self._calls.submit(prompt, fields))

    def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids."""
        parts = sliced(requests, samples)  # a generator belongs to the thread of its caller
        return self._thread.run(self._calls.submit_slices(parts, samples))

    def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get."""
        return self._thread.run(self._calls.route(prompt, fields))

    def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in."""
        return self._thread.run(self._calls.check(prompt, fields))

    def result(self, job_id: str) -> Result:
        """Return the result as it is now."""
        return self._thread.run(self._calls.result(job_id))

    def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now."""
        return self._thread.run(self._calls.results(ids))

    def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended."""
        return self._thread.run(self._calls.ended(job_id, timeout_s))

    def ends(self, timeout_s: float | None) -> BlockingEnds:
        """Return what waits for many jobs together."""
        return blocking_ends(self._thread, self._calls, timeout_s)

    def stream(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> Iterator[TextPiece]:
        """Yield the pieces of the answer."""
        begin = partial(self._calls.pieces, job_id, timeout_s, pulse_s, after)
        return self._thread.iterate(begin)

    def status(self, job_id: str) -> Status:
        """Return the status now."""
        return self._thread.run(self._calls.status(job_id))

    def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""
        return self._thread.run(self._calls.jobs(asked))

    def usage(self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery) -> UsageReport:
        """Return who used what."""
        return self._thread.run(self._calls.usage(by, asked))

    def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait for the workers of running ones, all together."""
        return self._thread.run(self._calls.cancel(ids, timeout_s))

    def retry(self, job_id: str) -> str:
        """Queue a failed job again."""
        return self._thread.run(self._calls.retry(job_id))

    def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""
        return self._thread.run(self._calls.health())

    def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force."""
        return self._thread.run(self._calls.limits(pool, tenant))

    def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""
        return self._thread.run(self._calls.budgets())

    def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""
        return self._thread.run(self._calls.cache_stats())

    def close(self) -> None:
        """Close all connections."""
        self._thread.close(self._calls.close())
