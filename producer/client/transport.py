"""What the clients ask of the way to their servers: the same for every way.

`Client` has a BlockingTransport and `AsyncClient` an AsyncTransport. All of them check the
arguments, raise the same errors and keep the same times, so that a program need not know its way.
`direct/` goes to Redis and the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import UsageKey
from headgate.producer.client.many.ends import BlockingEnds
from headgate.producer.client.pieces import TextPiece
from headgate.producer.installation import Installation
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route


class AnswerPieces(Protocol):
    """The text of one answer, read piece by piece in one event loop."""

    async def next(self) -> TextPiece | None:
        """Return the next piece, "" if none came for `pulse_s`, None after the last."""

    def close(self) -> None:
        """Stop reading."""


class BlockingTransport(Protocol):
    """The blocking way of `Client`. Many threads may call every method at once."""

    def open(self) -> Installation | None:
        """Connect now; raise Unreachable. Returns the open servers, None if they are remote."""

    def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""

    def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids in the order of the requests and their samples."""

    def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get for this request, and why."""

    def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in now, and what it would hold."""

    def result(self, job_id: str) -> Result:
        """Return the result as it is now."""

    def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now, in order; raise for the first id that has none."""

    def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended; raise JobTimeout."""

    def ends(self, timeout_s: float | None) -> BlockingEnds:
        """Return what waits for many jobs together."""

    def stream(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> Iterator[TextPiece]:
        """Yield the pieces of the answer; closing the iterator stops the reading."""

    def status(self, job_id: str) -> Status:
        """Return the status now, also if the result has expired."""

    def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""

    def usage(self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery) -> UsageReport:
        """Return who used what."""

    def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait so long for the workers of running ones; return the results."""

    def retry(self, job_id: str) -> str:
        """Queue a failed job again under its id; return the id."""

    def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""

    def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force, and the jobs that wait for them."""

    def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""

    def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""

    def close(self) -> None:
        """Close all connections. Whoever still waits gets a RuntimeError."""


class AsyncTransport(Protocol):
    """The way of `AsyncClient`: any number of event loops may use it at once."""

    async def open(self) -> Installation | None:
        """Connect now; raise Unreachable. Returns the open servers, None if they are remote."""

    async def submit(self, prompt: str | None, fields: RequestFields) -> str:
        """Submit one job; return its id."""

    async def submit_many(self, requests: Requests, samples: int) -> list[str]:
        """Submit many jobs; return their ids in the order of the requests and their samples."""

    async def route(self, prompt: str | None, fields: RequestFields) -> Route:
        """Return which model "auto" would get for this request, and why."""

    async def check(self, prompt: str | None, fields: RequestFields) -> AdmissionCheck:
        """Return whether this request would be let in now, and what it would hold."""

    async def result(self, job_id: str) -> Result:
        """Return the result as it is now."""

    async def results(self, ids: Sequence[str]) -> list[Result]:
        """Return results as they are now, in order; raise for the first id that has none."""

    async def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result once the job has ended; raise JobTimeout."""

    async def pieces(
        self, job_id: str, timeout_s: float | None, pulse_s: float | None, after: int | str
    ) -> AnswerPieces:
        """Begin to read the answer of a job."""

    async def status(self, job_id: str) -> Status:
        """Return the status now, also if the result has expired."""

    async def jobs(self, asked: JobFilters) -> list[Listed]:
        """Return the newest jobs first."""

    async def usage(
        self, by: UsageKey | str | Sequence[UsageKey], asked: UsageQuery
    ) -> UsageReport:
        """Return who used what."""

    async def cancel(self, ids: Sequence[str], timeout_s: float) -> list[Result]:
        """Cancel jobs; wait so long for the workers of running ones; return the results."""

    async def retry(self, job_id: str) -> str:
        """Queue a failed job again under its id; return the id."""

    async def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers."""

    async def limits(self, pool: str | None, tenant: str | None) -> LimitsReport:
        """Return the limits in force, and the jobs that wait for them."""

    async def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent."""

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is."""

    async def close(self) -> None:
        """Close all connections. Whoever still waits in this event loop is cancelled."""
