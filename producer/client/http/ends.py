"""Wait for the ends of jobs over HTTP: thousands of waiters share a few long polls.

A poll asks for up to 200 jobs and is answered when at least one has ended. New jobs get a poll of
their own. When there are many polls the smallest one is given up, and its jobs join the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from headgate.producer.client.arguments import require_job_id, require_seconds
from headgate.producer.client.http.connections import Connections
from headgate.producer.client.http.one_job import end_in, no_job, shown_result
from headgate.producer.client.http.patience import Patience
from headgate.producer.errors import JobTimeout
from headgate.shared.job.encoding import dumps
from headgate.shared.job.result import Result

MOST_IDS = 200
"""Jobs of one poll. The gateway looks at all of them again after each answer."""

MOST_POLLS = 6

POLL_S = 25.0
"""How long a poll asks the gateway to wait; proxies close calls that are silent for 60 s."""

GATHER_S = 0.01
"""How long new jobs are gathered for one poll while other polls are open."""

LAST_LOOK_S = 5.0
"""How long the last look at the end of a wait may take."""

PAUSE_S = 0.5
"""The wait before a poll that failed is sent again; it doubles with each try."""


class JobEnds:
    """All who wait for jobs in one event loop."""

    def __init__(self, at: Connections) -> None:
        self._at = at
        self._waiting: dict[str, list[asyncio.Future[Result]]] = {}
        self._new: dict[str, None] = {}
        self._polls: dict[asyncio.Task[None], list[str]] = {}
        self._starting: asyncio.Task[None] | None = None

    async def ended(self, job_id: str, timeout_s: float | None) -> Result:
        """Return the result of the job once it has ended, however it ended.

        Raises JobTimeout after `timeout_s`, UnknownJob, ResultExpired, KeyRefused, and Unreachable
        if the gateway does not answer for a minute, or at the end of `timeout_s`.
        """
        require_job_id(job_id)
        require_seconds("timeout_s", timeout_s)
        no_job(job_id)
        if timeout_s == 0:
            return await self.end_now(job_id, 0)
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._join(job_id, future)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return await self.end_now(job_id, timeout_s or 0)
        finally:
            self._leave(job_id, future)

    async def end_now(self, job_id: str, waited_s: float) -> Result:
        """Return the result of a job that has ended; raise JobTimeout if it has not."""
        try:
            async with asyncio.timeout(LAST_LOOK_S):
                found = await shown_result(self._at, job_id)
        except TimeoutError:
            raise JobTimeout(job_id, waited_s) from None
        if found.ended:
            return found
        raise JobTimeout(job_id, waited_s, found.waiting_for)

    async def close(self) -> None:
        """Stop all polls; cancel those who still wait."""
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        self._waiting.clear()
        tasks = [*self._polls, *([] if self._starting is None else [self._starting])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _join(self, job_id: str, future: asyncio.Future[Result]) -> None:
        self._at.require_open()
        is_polled = job_id in self._waiting
        self._waiting.setdefault(job_id, []).append(future)
        if is_polled:
            return
        self._new[job_id] = None
        if not self._polls and self._starting is None:
            self._start_polls()
        elif self._starting is None:
            self._starting = asyncio.create_task(self._start_soon(), name="new polls")

    def _leave(self, job_id: str, future: asyncio.Future[Result]) -> None:
        futures = self._waiting.get(job_id, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._waiting.pop(job_id, None)
            self._new.pop(job_id, None)
        if not self._waiting:
            for poll in self._polls:
                poll.cancel()

    async def _start_soon(self) -> None:
        await asyncio.sleep(GATHER_S)
        self._starting = None
        self._start_polls()

    def _start_polls(self) -> None:
        """Start polls for the new jobs; give up small polls, whose jobs join the new ones."""
        new, self._new = [*self._new], {}
        while len(self._polls) >= MOST_POLLS:
            smallest = min(self._polls, key=lambda poll: len(self._polls[poll]))
            if len(self._polls[smallest]) > MOST_IDS // 2:
                break
            new += self._polls.pop(smallest)
            smallest.cancel()
        for begin in range(0, len(new), MOST_IDS):
            self._start_poll(new[begin : begin + MOST_IDS])

    def _start_poll(self, ids: list[str]) -> None:
        poll = asyncio.create_task(self._poll_for(ids), name="poll for ends of jobs")
        self._polls[poll] = ids
        poll.add_done_callback(lambda _: self._polls.pop(poll, None))

    async def _poll_for(self, ids: list[str]) -> None:
        try:
            await self._keep_polling(ids)
        finally:
            if (this := asyncio.current_task()) is not None:
                self._polls.pop(this, None)

    async def _keep_polling(self, ids: list[str]) -> None:
        """Poll until nobody waits for these jobs any more. `ids` is changed in place."""
        patience = Patience(PAUSE_S)
        while self._only_waited_for(ids):
            try:
                await self._poll(ids)
            except Exception as error:  # those who wait must get it, not hang
                pause_s = patience.pause_s(error)
                if pause_s is None:
                    self._settle_all(ids, error)
                    return
                await asyncio.sleep(pause_s)
            else:
                patience.reset()

    def _only_waited_for(self, ids: list[str]) -> list[str]:
        ids[:] = [job_id for job_id in ids if job_id in self._waiting]
        return ids

    async def _poll(self, ids: list[str]) -> None:
        body, began = dumps({"ids": ids, "wait_s": POLL_S}), time.monotonic()
        answer = await self._at.call("POST", "/v1/jobs/wait", body, wait_s=POLL_S)
        results = answer.body["results"]
        if not results and time.monotonic() - began < PAUSE_S:  # the gateway stops
            await asyncio.sleep(PAUSE_S)
        for job_id, end in results.items():
            self._settle(job_id, end_in(end))

    def _settle_all(self, ids: Iterable[str], end: Exception) -> None:
        for job_id in [*ids]:
            self._settle(job_id, end)

    def _settle(self, job_id: str, end: Result | Exception) -> None:
        for future in self._waiting.pop(job_id, []):
            with contextlib.suppress(asyncio.InvalidStateError):  # whoever waited has gone
                if isinstance(end, Exception):
                    future.set_exception(end)
                else:
                    future.set_result(end)
