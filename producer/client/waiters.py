"""Wait for the ends of jobs: thousands of waiters share one subscription and one query.

The database is the truth. A worker commits first and publishes then, and a waiter looks there when
its subscription stands, so no end is missed in between. The message of a job that succeeded has the
result in it; any other message only says when to look. All waiting jobs are looked up every second
too, so a lost Redis only delays waiters.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

import redis.asyncio

from headgate.producer.client.arguments import require_job_id, require_seconds
from headgate.producer.client.delta_reader import DeltaReader
from headgate.producer.client.deltas import DeltaReaders
from headgate.producer.client.pubsub import (
    LOOK_EVERY_S,
    PING_AFTER_S,
    Subscriptions,
    is_cancelled,
)
from headgate.producer.errors import JobTimeout
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.results import result_in
from headgate.shared.errors import HeadgateError, Unreachable
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import WaitingFor

GIVE_UP_AFTER_S = 60.0
"""After how long without the database Unreachable is raised to all who wait."""

NEW_LOOK_S = 0.1
"""How long the end of a new job is waited for before the database is looked at for it."""

GATHER_S = 0.05
"""How long a wait for one of many jobs goes on after the first end: others end then, too."""

LAST_LOOK_S = 5.0
"""How long the last look at the end of a wait may take, if the database hangs."""

Found = dict[str, Result | HeadgateError]
Look = Callable[[Sequence[str]], Awaitable[Found]]
LastLook = Callable[[str], Awaitable[Result | WaitingFor | None]]


class Waiters:
    """All who wait for jobs in one event loop.

    `look` reads the database; see `look` in producer/results/read.py. `last_look` finds out at the
    end of a wait what the job waits for; see `end_or_wait` there. `deltas` are the readers of
    answers while they are made.
    """

    def __init__(
        self,
        look: Look,
        last_look: LastLook,
        client: redis.asyncio.Redis,
        keys: Keys,
        *,
        ping_after_s: float = PING_AFTER_S,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._look, self._end_or_wait = look, last_look
        self._waiting: dict[str, list[asyncio.Future[Result]]] = {}
        self._due: set[str] = set()
        self._new: set[str] = set()
        self._look_at_new = 0.0
        self._wake = asyncio.Event()
        self._channels = Subscriptions(client, keys.result, self._on_news, ping_after_s)
        self.deltas = DeltaReaders(client, keys, ping_after_s=ping_after_s)
        self._looking: asyncio.Task[None] | None = None
        self._failing_since: float | None = None
        self._give_up_after_s = give_up_after_s

    async def ended(
        self, job_id: str, timeout_s: float | None = None, *, is_new: bool = False
    ) -> Result:
        """Return the result of the job once it has ended, however it ended.

        `is_new`: it was submitted this moment. Its end most likely comes as a message, so that the
        first look at the database can be NEW_LOOK_S later, for many jobs together.

        Raises JobTimeout after `timeout_s`, UnknownJob, ResultExpired, and Unreachable if the
        database cannot be read for a minute, or at the end of `timeout_s`.
        """
        require_job_id(job_id)
        require_seconds("timeout_s", timeout_s)
        future = self._join(job_id, is_new=is_new)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return await self.end_now(job_id, timeout_s or 0)  # so a wait of 0 s looks once
        finally:
            self._leave(job_id, future)

    async def some_ended(self, ids: Sequence[str], timeout_s: float) -> Found:
        """Return the ends of jobs once there is one, with all that come at about the same time.

        It is empty if no job ends within `timeout_s`. The value is an error for an expired result
        and an unknown id. Raises Unreachable as `ended` does.
        """
        if timeout_s <= 0:
            return await self._look(ids)
        futures = {job_id: self._join(job_id) for job_id in dict.fromkeys(ids)}
        try:
            done, left = await asyncio.wait(
                futures.values(), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done and left:
                await asyncio.wait(left, timeout=GATHER_S)
            return {job_id: _end_of(future) for job_id, future in futures.items() if future.done()}
        finally:
            for job_id, future in futures.items():
                self._leave(job_id, future)

    def waits_for(self, job_id: str) -> bool:
        """Return whether anyone waits for the end of this job here."""
        return job_id in self._waiting

    async def end_now(self, job_id: str, waited_s: float) -> Result:
        """Return the result of a job that has ended; raise JobTimeout if it has not.

        The error says what the job waits for. Also raises UnknownJob, ResultExpired and
        Unreachable.
        """
        try:
            async with asyncio.timeout(LAST_LOOK_S):
                found = await self._end_or_wait(job_id)
        except TimeoutError:
            found = None
        if isinstance(found, Result):
            return found
        raise JobTimeout(job_id, waited_s, found) from None

    async def ended_already(self, job_id: str) -> Result | None:
        """Return the result of a job that has ended; None if it has not.

        Raises UnknownJob, ResultExpired and Unreachable.
        """
        require_job_id(job_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_LOOK_S):
                found = (await self._look([job_id])).get(job_id)
            if isinstance(found, HeadgateError):
                raise found
            return found
        return None

    def stop_reading(
        self, reader: DeltaReader | None, ended: asyncio.Future[Result] | None
    ) -> None:
        """Close a reader of an answer, and the wait for its end; both may be None."""
        if reader is not None:
            self.deltas.close_reader(reader)
        if ended is not None and not ended.done():
            ended.cancel()
        elif ended is not None and not ended.cancelled():
            ended.exception()  # retrieved, so that asyncio does not log it as forgotten

    async def close(self) -> None:
        """Stop all tasks; cancel those who still wait."""
        await self.deltas.close()
        for futures in self._waiting.values():
            for future in futures:
                future.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _on_news(self, job_id: str, record: bytes | None = None) -> None:
        """Take the result out of the record, or look at the job in the next round, now."""
        if job_id not in self._waiting:
            return
        result = None if record is None else result_in(record, job_id)
        if result is not None:
            self._due.discard(job_id)
            self._settle(job_id, result)
        elif record is not None or job_id not in self._new:
            self._due.add(job_id)
        self._wake.set()

    def _join(self, job_id: str, *, is_new: bool = False) -> asyncio.Future[Result]:
        """Begin to wait for the job; return what gets its end. Call `_leave` in any case."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._keep_looking())
        future: asyncio.Future[Result] = self.loop.create_future()
        self._waiting.setdefault(job_id, []).append(future)
        if is_new:
            self._look_later(job_id)
        if self._channels.brings_news_of(job_id):
            self._wake.set()
        else:
            self._on_news(job_id)
        return future

    def _look_later(self, job_id: str) -> None:
        if not self._new:
            self._look_at_new = time.monotonic() + NEW_LOOK_S
        self._new.add(job_id)

    def _leave(self, job_id: str, future: asyncio.Future[Result]) -> None:
        futures = self._waiting.get(job_id, [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._waiting.pop(job_id, None)
            self._due.discard(job_id)
            self._new.discard(job_id)

    async def _keep_looking(self) -> None:
        next_round = time.monotonic() + LOOK_EVERY_S
        with contextlib.suppress(asyncio.CancelledError):
            while not is_cancelled():
                next_look = min(next_round, self._look_at_new) if self._new else next_round
                left_s = max(0.0, next_look - time.monotonic())
                with contextlib.suppress(TimeoutError):
                    # While nobody waits nothing is due; the next waiter wakes this task.
                    async with asyncio.timeout(left_s if self._waiting else None):
                        await self._wake.wait()
                self._wake.clear()
                now = time.monotonic()
                if now >= next_round:
                    self._due.update(self._waiting)
                    next_round = now + LOOK_EVERY_S
                if self._new and now >= self._look_at_new:
                    self._due.update(self._new & self._waiting.keys())
                    self._new.clear()
                due, self._due = list(self._due), set()
                await self._look_at(due)
                await self._channels.follow(self._waiting.keys())
        await self._channels.close()  # cancelled by close, or by an asyncio.run that ends

    async def _look_at(self, due: Sequence[str]) -> None:
        if not due:
            return
        began = time.monotonic()
        try:
            found = await self._look(due)
        except Unreachable as error:
            since = self._failing_since = self._failing_since or began
            if time.monotonic() - since >= self._give_up_after_s:
                for job_id in list(self._waiting):
                    self._settle(job_id, error)
                self._failing_since = None
            return
        except Exception as error:  # those who wait must get it, not hang
            for job_id in due:
                self._settle(job_id, error)
            return
        self._failing_since = None
        for job_id, result in found.items():
            self._settle(job_id, result)

    def _settle(self, job_id: str, result: Result | Exception) -> None:
        for future in self._waiting.pop(job_id, []):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _end_of(future: asyncio.Future[Result]) -> Result | HeadgateError:
    """Return the result, or the error of this one job; raise what concerns all jobs."""
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, HeadgateError) and not isinstance(error, Unreachable):
        return error
    raise error
