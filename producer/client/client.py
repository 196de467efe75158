"""What other programs import: Client, and AsyncClient with the same methods as coroutines.

Both do their work on the record and the broker with blocking connections; only waiting is async,
so that thousands can wait at the price of one. Both open their servers at the first use.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Self, Unpack

from headgate.producer.client.handle import AsyncJob, Job
from headgate.producer.client.loop_thread import LoopThread
from headgate.producer.client.operations import Operations, Requests
from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Found, Waiters
from headgate.producer.errors import JobTimeout, UnknownJob
from headgate.producer.installation import Installation
from headgate.producer.results.read import Listed
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.job.result import Result, Status
from headgate.shared.routing.router import Route
from headgate.shared.settings import Settings

CANCEL_WAIT_S = 10.0
"""How long `cancel` waits for the worker of a running job, which looks every second."""


class AsyncClient:
    """Submits jobs and waits for them in an asyncio program; `settings` default to the environment.

    May be used by many tasks at once.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._desk = Operations(settings)
        self._waiters: Waiters | None = None

    async def submit(self, prompt: str | None = None, /, **fields: Any) -> AsyncJob:
        """A job that is on record and queued; `fields` are those of a request.

        Raises InvalidRequest with nothing queued, TierLimit with nothing queued (where `on_limit`
        is "refuse"), Unreachable with nothing on record, and SubmitInterrupted where the job is on
        record but not queued yet.
        """
        return AsyncJob(await asyncio.to_thread(self._desk.submit, prompt, fields), self)

    async def route(self, prompt: str | None = None, /, **fields: Any) -> Route:
        """Which model a request for `auto` would get now, and why; see Client.route."""
        return await asyncio.to_thread(self._desk.route, prompt, fields)

    async def submit_many(self, requests: Requests) -> list[str]:
        """The ids of jobs that are on record and queued, in order; see Client.submit_many."""
        return await asyncio.to_thread(self._desk.submit_many, requests)

    async def result(
        self, job_id: str, *, wait: bool = False, timeout_s: float | None = None
    ) -> Result:
        """The result now, or after the job's end with `wait` or `timeout_s`; see Client.result."""
        if not wait and timeout_s is None:
            return await asyncio.to_thread(self._desk.result, job_id)
        return await (await self._waiting()).ended(job_id, timeout_s)

    async def stream(
        self, job_id: str, *, timeout_s: float | None = None, pulse_s: float | None = None
    ) -> AsyncGenerator[str, None]:
        """The text of the answer, piece by piece as it is made; see Client.stream."""
        async with TextStream(await self._waiting(), job_id, timeout_s, pulse_s) as reading:
            while (piece := await reading.next()) is not None:
                yield piece

    async def status(self, job_id: str) -> Status:
        """How far the job is; works also when its result has expired. Raises UnknownJob."""
        return await asyncio.to_thread(self._desk.status, job_id)

    async def jobs(
        self,
        *,
        status: str | None = None,
        tenant: str | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 50,
    ) -> list[Listed]:
        """The newest jobs first, at most `limit`. `since`: a moment, or how long ago."""
        return await asyncio.to_thread(self._desk.jobs, status, tenant, since, limit)

    async def usage(self, by: str | Sequence[str] = (), **asked: Unpack[UsageQuery]) -> UsageReport:
        """Who used what; see Client.usage."""
        return await asyncio.to_thread(self._desk.usage, by, asked)

    async def cancel(self, job_id: str, *, timeout_s: float = CANCEL_WAIT_S) -> Result:
        """The result after the job was cancelled, or had ended before; see Client.cancel."""
        became = await asyncio.to_thread(self._desk.cancel, [job_id])
        if job_id in became.ended:
            return became.ended[job_id]
        if job_id not in became.running:
            raise UnknownJob(job_id)
        try:
            return await self.result(job_id, timeout_s=timeout_s)
        except JobTimeout:
            return await self.result(job_id)

    async def close(self) -> None:
        """All connections are closed; those who still wait are cancelled."""
        waiters, self._waiters = self._waiters, None
        if waiters is not None and waiters.loop is asyncio.get_running_loop():
            await waiters.close()
        await asyncio.to_thread(self._desk.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _waiting(self) -> Waiters:
        at = await asyncio.to_thread(self._desk.open)
        if self._waiters is None or self._waiters.loop is not asyncio.get_running_loop():
            self._waiters = waiters_of(self._desk, at)
        return self._waiters


def waiters_of(desk: Operations, at: Installation) -> Waiters:
    """Those who wait in the running loop, with one look and one subscription for all."""

    async def look(ids: Sequence[str]) -> Found:
        return await asyncio.to_thread(desk.look, ids)

    return Waiters(look, at.servers.async_redis_client(), at.keys)


class Client:
    """Submits jobs and waits for them, blocking; `settings` default to the environment.

    May be used by many threads at once, and in a forked child, which opens servers of its own.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._desk = Operations(settings)
        self._lock = threading.Lock()
        self._background: LoopThread | None = None
        self._pid = os.getpid()
        _open_clients.add(self)

    def open(self) -> Installation:
        """The servers, opened if they were not; raises Unreachable."""
        return self._desk.open()

    def submit(self, prompt: str | None = None, /, **fields: Any) -> Job:
        """A job that is on record and queued; `fields` are those of a request.

        Raises InvalidRequest with nothing queued, TierLimit with nothing queued (where `on_limit`
        is "refuse"), Unreachable with nothing on record, and SubmitInterrupted where the job is on
        record but not queued yet.
        """
        return Job(self._desk.submit(prompt, fields), self)

    def route(self, prompt: str | None = None, /, **fields: Any) -> Route:
        """What `auto` would choose for this request now, why, and what others would cost."""
        return self._desk.route(prompt, fields)

    def submit_many(self, requests: Requests) -> list[str]:
        """The ids of jobs that are on record and queued, in the order of the requests.

        All are checked before the first is written: an InvalidRequest, which names
        `requests[i].field`, or a TierLimit, which has its `index`, means that nothing was queued,
        nor taken from a limit. They are held in memory meanwhile (about 3 kB each and the prompt),
        so give millions in slices. SubmitInterrupted says which are on record.
        """
        return self._desk.submit_many(requests)

    def result(self, job_id: str, *, wait: bool = False, timeout_s: float | None = None) -> Result:
        """The result as it is now; with `wait` or `timeout_s`, after the job's end, however it was.

        A failed job gives a Result with an `error`, and raises nothing. Raises UnknownJob,
        ResultExpired, Unreachable, and JobTimeout if it has not ended after `timeout_s`.
        """
        if not wait and timeout_s is None:
            return self._desk.result(job_id)
        return self._in_background().ended(job_id, timeout_s)

    def stream(
        self, job_id: str, *, timeout_s: float | None = None, pulse_s: float | None = None
    ) -> Iterator[str]:
        """The text of the answer, piece by piece: as it is made where the job was submitted with
        `stream=True`, else at once when it is there.

        All pieces together are the result's `content`; tool calls are only in the result. With
        `pulse_s` an empty text comes wherever nothing else came for so long. Raises JobFailed when
        the job ends without an answer, also after some of it; StreamBroken when what was given is
        void and the job begins anew (ask again); JobTimeout after `timeout_s`; and what `result`
        raises.
        """
        return self._in_background().stream(job_id, timeout_s, pulse_s)

    def status(self, job_id: str) -> Status:
        """How far the job is; works also when its result has expired. Raises UnknownJob."""
        return self._desk.status(job_id)

    def jobs(
        self,
        *,
        status: str | None = None,
        tenant: str | None = None,
        since: datetime | timedelta | None = None,
        limit: int = 50,
    ) -> list[Listed]:
        """The newest jobs first, at most `limit`. `since`: a moment, or how long ago."""
        return self._desk.jobs(status, tenant, since, limit)

    def usage(self, by: str | Sequence[str] = (), **asked: Unpack[UsageQuery]) -> UsageReport:
        """Who used what, of all jobs that ended, or of those asked for; needs no Redis.

        `by`: some of tenant, user, model, template, batch, day, month; without, only the total.
        Raises InvalidRequest, and Unreachable.
        """
        return self._desk.usage(by, asked)

    def cancel(self, job_id: str, *, timeout_s: float = CANCEL_WAIT_S) -> Result:
        """The result after the job was cancelled, or had ended before: read its status.

        A running job is stopped by its worker; after `timeout_s` its result may still say running.
        Raises UnknownJob, and Unreachable.
        """
        became = self._desk.cancel([job_id])
        if job_id in became.ended:
            return became.ended[job_id]
        if job_id not in became.running:
            raise UnknownJob(job_id)
        try:
            return self.result(job_id, timeout_s=timeout_s)
        except JobTimeout:
            return self.result(job_id)

    def close(self) -> None:
        """All connections are closed; those who still wait are cancelled."""
        self._after_fork()
        with self._lock:
            background, self._background = self._background, None
        if background is not None:
            background.close()
        self._desk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _in_background(self) -> LoopThread:
        self._after_fork()
        at = self._desk.open()
        with self._lock:
            if self._background is None:

                async def waiters() -> Waiters:
                    return waiters_of(self._desk, at)

                self._background = LoopThread(waiters)
            return self._background

    def _after_fork(self) -> None:
        if self._pid != os.getpid():  # the thread that waits is the parent's; the lock may be held
            self._background, self._lock, self._pid = None, threading.Lock(), os.getpid()


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for client in list(_open_clients):
        client.close()
