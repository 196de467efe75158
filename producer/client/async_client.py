"""The client for asyncio programs: the same methods as `Client`, as coroutines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from functools import partial
from typing import NoReturn, Self, Unpack, cast

from headgate.producer.admin.budgets import BudgetRow
from headgate.producer.admin.cache import CacheStats
from headgate.producer.admin.health import HealthReport
from headgate.producer.admin.limits_rows import LimitsReport
from headgate.producer.client.arguments import NOT_PICKLED, UsageKey, require_seconds, timeout_of
from headgate.producer.client.client import CANCEL_WAIT_S
from headgate.producer.client.handle import AsyncJob
from headgate.producer.client.many.ends import checked_ids, ends_of
from headgate.producer.client.many.gather import collected_async, completed_async, ids_kept
from headgate.producer.client.many.prompts import answers_of, combined_async
from headgate.producer.client.many.slices import Flow, Progress
from headgate.producer.client.many.submit import submit_slices_async
from headgate.producer.client.pieces import TextPiece
from headgate.producer.client.response_format import (
    ResponseFormat,
    parsed_by,
    with_response_format,
)
from headgate.producer.client.transport import AsyncTransport
from headgate.producer.client.ways import Way
from headgate.producer.errors import JobTimeout
from headgate.producer.results.listing import JobFilters, Listed
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.producer.submit.fields import RequestFields, RequestForm, Requests
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route
from headgate.shared.settings import Settings


class AsyncClient:
    """Submits jobs and waits for their results, in an asyncio program.

    settings: Settings, such as `Settings(redis_url="redis://...")`, or the URL of a Redis. Default:
        from the environment.
    base_url, api_key: the address of a gateway, with or without /v1, and a key for it. Then the
        client needs no Redis and no database. Default: HEADGATE_BASE_URL and HEADGATE_API_KEY.

    The client opens its servers at the first use. Use it as an async context manager, or call
    `close`. Many tasks may use one client.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._transport: AsyncTransport = Way(settings, base_url, api_key).in_loops()

    async def submit(
        self,
        prompt: str | None = None,
        /,
        *,
        response_format: ResponseFormat | None = None,
        **fields: Unpack[RequestFields],
    ) -> AsyncJob:
        """Submit a job: put it on record and on its queue.

            job = await client.submit("Summarise ...", model="gpt-4o-mini")
            print((await job.result(timeout_s=30)).content)

        prompt: the text of one user message; the same as the field `prompt`.
        response_format: the form of the answer; see `Client.submit`.
        fields: the fields of a request; see RequestFields for their meaning and units.

        Returns the AsyncJob. Raises what `Client.submit` raises.
        """
        asked = with_response_format(fields, response_format)
        return AsyncJob(await self._transport.submit(prompt, asked), self, response_format)

    async def submit_many(
        self,
        requests: Requests | AsyncIterable[RequestForm],
        *,
        samples: int = 1,
        max_in_flight: int | None = None,
        progress: Progress | None = None,
    ) -> list[str]:
        """Submit many jobs at once, or any number in slices; see `Client.submit_many`.

        requests: also an asynchronous iterable, which is always taken in slices.
        progress: it may be a coroutine function.
        """
        is_async = isinstance(requests, AsyncIterable)
        if max_in_flight is None and progress is None and not is_async:
            return await self._transport.submit_many(cast("Requests", requests), samples)
        flow, submit = Flow(samples, max_in_flight, progress), self._transport.submit_many
        new_ends = partial(ends_of, self._transport)
        return await submit_slices_async(requests, flow, partial(submit, samples=samples), new_ends)

    async def map(
        self,
        prompts: Requests | AsyncIterable[RequestForm],
        *,
        return_errors: bool = False,
        timeout_s: float | None = None,
        max_in_flight: int | None = None,
        progress: Progress | None = None,
        response_format: ResponseFormat | None = None,
        **fields: Unpack[RequestFields],
    ) -> list[Result]:
        """Return the answers to prompts, in the same order; see `Client.map`."""
        requests = combined_async(prompts, fields, response_format)
        ids = await self.submit_many(requests, max_in_flight=max_in_flight, progress=progress)
        try:
            ended = self.as_completed(ids, timeout_s, response_format)
            with ids_kept(ids):
                found = await collected_async(ended, ids, progress)
        except JobTimeout:
            if not return_errors:
                raise
            return await self.results(ids, response_format=response_format)
        return found if return_errors else answers_of(found)

    async def route(self, prompt: str | None = None, /, **fields: Unpack[RequestFields]) -> Route:
        """Return which model a request for "auto" would get now, and why; see `Client.route`."""
        return await self._transport.route(prompt, fields)

    async def result(
        self,
        job_id: str,
        *,
        wait: bool = False,
        timeout_s: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # Celery's name, an alias
        response_format: ResponseFormat | None = None,
    ) -> Result:
        """Return the result of a job: as it is now, or once the job has ended.

        wait: wait until the job has ended.
        timeout_s: how many seconds to wait at most; implies `wait`. None: no limit. `timeout` is
            the same.
        response_format: the pydantic model that `parsed` is made by.

        Raises UnknownJob, ResultExpired, JobTimeout and Unreachable; see `Client.result`.
        """
        timeout_s = timeout_of(timeout_s, timeout)
        if not wait and timeout_s is None:
            return parsed_by(await self._transport.result(job_id), response_format)
        return parsed_by(await self._transport.ended(job_id, timeout_s), response_format)

    async def results(
        self,
        job_ids: Iterable[str],
        *,
        wait: bool = False,
        timeout_s: float | None = None,
        response_format: ResponseFormat | None = None,
    ) -> list[Result]:
        """Return the results of many jobs, in the order of the ids; see `Client.results`."""
        ids = checked_ids(job_ids)
        if not wait and timeout_s is None:
            found = await self._transport.results(ids)
            return [parsed_by(result, response_format) for result in found]
        return await collected_async(self.as_completed(ids, timeout_s, response_format), ids)

    def as_completed(
        self,
        job_ids: Iterable[str],
        timeout_s: float | None = None,
        response_format: ResponseFormat | None = None,
    ) -> AsyncGenerator[Result, None]:
        """Yield the results of many jobs as they end; see `Client.as_completed`.

        async for result in client.as_completed(ids):
            print(result.id, result.content or result.error)
        """
        ids = checked_ids(job_ids)
        require_seconds("timeout_s", timeout_s)
        return completed_async(lambda: ends_of(self._transport, timeout_s), ids, response_format)

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
        pieces = await self._transport.pieces(job_id, timeout_s, pulse_s, after)
        try:
            while (piece := await pieces.next()) is not None:
                yield piece
        finally:
            pieces.close()

    async def status(self, job_id: str) -> Status:
        """Return the status of a job, also if its result has expired; raise UnknownJob."""
        return await self._transport.status(job_id)

    async def jobs(self, **asked: Unpack[JobFilters]) -> list[Listed]:
        """Return jobs, the newest first; see `Client.jobs`."""
        return await self._transport.jobs(asked)

    async def usage(
        self, by: UsageKey | str | Sequence[UsageKey] = (), **asked: Unpack[UsageQuery]
    ) -> UsageReport:
        """Return who used what, of jobs that have ended; see `Client.usage`."""
        return await self._transport.usage(by, asked)

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
        ids = checked_ids(job_ids)
        require_seconds("timeout_s", timeout_s, may_be_none=False)
        return await self._transport.cancel(ids, timeout_s)

    async def check(
        self, prompt: str | None = None, /, **fields: Unpack[RequestFields]
    ) -> AdmissionCheck:
        """Return whether a request would be let in now; see `Client.check`."""
        return await self._transport.check(prompt, fields)

    async def health(self) -> HealthReport:
        """Return the state of models, pools, servers and workers; see `Client.health`."""
        return await self._transport.health()

    async def limits(self, *, pool: str | None = None, tenant: str | None = None) -> LimitsReport:
        """Return the limits in force and the jobs that wait for them; see `Client.limits`."""
        return await self._transport.limits(pool, tenant)

    async def budgets(self) -> list[BudgetRow]:
        """Return how much of each budget is spent, today and this month (UTC)."""
        return await self._transport.budgets()

    async def cache_stats(self) -> CacheStats:
        """Return how full the cache of answers is, and what it has saved."""
        return await self._transport.cache_stats()

    async def retry(self, job_id: str) -> AsyncJob:
        """Queue a job that failed or expired again, under its id. See `Client.retry`."""
        return AsyncJob(await self._transport.retry(job_id), self)

    async def close(self) -> None:
        """Close all connections. Whoever still waits is cancelled."""
        await self._transport.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(NOT_PICKLED.format("AsyncClient"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
