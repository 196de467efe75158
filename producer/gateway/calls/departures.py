"""What becomes of the job of a caller that goes away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from headgate.producer.client.operations import Operations
from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.retries import CANCELLED, NOBODY, RecentCalls
from headgate.shared.errors import HeadgateError, place_of

log = logging.getLogger("headgate.gateway")

GRACE_S = 10.0
"""How long the job of a caller that went away stays, if the caller may ask for it again. The
vendors' libraries do so after 8 s at most."""


SHED_EVERY_S, SHED_AT_ONCE = 0.5, 500
"""How often, and how many at once: each time takes a thread and a transaction."""


class Departures:
    """Cancels the jobs of callers that went away, in the background.

    `recent` returns the calls of the last minutes; `is_awaited` says whether a call of this process
    waits for a job. While the gateway is `stopping`, jobs go on: their callers may ask another
    gateway for them.
    """

    def __init__(
        self,
        operations: Operations,
        recent: Callable[[], Awaitable[RecentCalls]],
        is_awaited: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.stops = asyncio.Event()
        self._operations = operations
        self._recent = recent
        self._is_awaited = is_awaited
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_shed: list[tuple[float, str]] = []

    @property
    def stopping(self) -> bool:
        """Whether the gateway takes no new calls; `stops` is the same, to wait for."""
        return self.stops.is_set()

    def stop(self) -> None:
        """Say that the gateway takes no new calls."""
        self.stops.set()

    def leave(self, call: GatewayCall, job_id: str, *, resumable: bool = True) -> None:
        """Cancel the job, unless the caller wants it, or asks for it again within `GRACE_S`."""
        if not (call.detach or self.stopping):
            self._start(self._cancel_later(call, job_id, resumable=resumable))

    def cancel(self, job_id: str) -> None:
        """Cancel the job now."""
        self._start(self._cancel(job_id))

    def shed(self, job_id: str) -> None:
        """Make the prompt and the answer of a job go that its caller has, after `GRACE_S`.

        Until then a retry finds it. If the gateway stops before, maintenance does it.
        """
        self._to_shed.append((time.monotonic() + GRACE_S, job_id))
        if len(self._to_shed) == 1:
            self._start(self._shed_all())

    async def _shed_all(self) -> None:
        """Shed those that are due, many at once, until none is left."""
        while self._to_shed:
            await asyncio.sleep(max(SHED_EVERY_S, self._to_shed[0][0] - time.monotonic()))
            now = time.monotonic()
            due = [job_id for due_at, job_id in self._to_shed[:SHED_AT_ONCE] if due_at <= now]
            try:
                await asyncio.to_thread(self._operations.shed, due)
            except Exception as error:
                log.warning("%d jobs are shed later: %s", len(due), place_of(error))
            del self._to_shed[: len(due)]

    async def close(self) -> None:
        """Stop all that still waits; their jobs go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _cancel_later(self, call: GatewayCall, job_id: str, *, resumable: bool) -> None:
        if call.digest and resumable:
            await asyncio.sleep(GRACE_S)
        if call.digest:
            with suppress(RedisError, HeadgateError):
                if not await self._gives_up(call, job_id, resumable=resumable):
                    return
        await self._cancel(job_id)

    async def _gives_up(self, call: GatewayCall, job_id: str, *, resumable: bool) -> bool:
        """Return whether nobody wants the job any more, and note what becomes of it."""
        recent = await self._recent()
        is_awaited = resumable and self._is_awaited(job_id)  # by an equal call before this one
        if resumable and not await recent.is_last(call.digest, job_id, call.request_id):
            return False
        found = await recent.job_of(call.digest)
        if found is not None and found[0] == job_id:
            recent.note(call.digest, job_id, NOBODY if is_awaited else CANCELLED)
        return not is_awaited

    async def _cancel(self, job_id: str) -> None:
        try:
            await asyncio.to_thread(self._operations.cancel, [job_id])
        except HeadgateError as error:
            log.warning("job %s, whose caller went away, was not cancelled: %s", job_id, error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
