"""A worker's line to the broker: fetches jobs with their leases, renews, acknowledges, gives back.

It is a coroutine on the pool's event loop with connections of its own. Celery's connection may
break and come back without a job noticing: leases and acknowledgements do not depend on it.

    run     one Lua call per round trip: acks of finished jobs out, new jobs with leases in
    tend    once a second: living sign, cancellations; each third of a lease: renewal
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

import redis.asyncio
from redis.exceptions import RedisError

from shared import scripts
from shared.envelope import now_ms
from shared.errors import UnreadableMessage
from shared.keys import Keys
from workers import message
from workers.message import Arrival
from workers.silence import Silence
from workers.waker import Waker

log = logging.getLogger("headgate.fetcher")

BATCH = 64
"""Jobs per round trip: more holds the server longer and delivers no faster (admission.md, B)."""

IDLE_S = 1.0
"""How often an idle worker looks by itself, at least six times in a lease: a third of a lease
without any call counts as a silence of the server, and lets no lease lapse."""

LINGER_S = 0.002
"""With few acks to send and no slot free, wait this long for more to share the round trip."""

StopReason = Literal["cancelled", "lost", "shutdown", "timeout"]


class Fetcher:
    """Holds at most `slots` jobs at a time, each with a lease of `lease_ms` on the server."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        waker: Waker,
        keys: Keys,
        *,
        owner: str,
        slots: int,
        lease_ms: int,
        on_arrival: Callable[[list[Arrival]], None],
        on_stop: Callable[[int, StopReason], None],
    ) -> None:
        self._client = client
        self._waker = waker
        self._keys = keys
        self.owner = owner
        self._slots = slots
        self._lease_ms = lease_ms
        self._idle_s = min(IDLE_S, lease_ms / 6000)
        self._on_arrival = on_arrival
        self._on_stop = on_stop
        self._queues: list[str] = []
        self._held: dict[int, str] = {}
        self._acks: deque[int] = deque()
        self._next_tag = 0
        self._open = False
        self._closing = False
        self._silence = Silence(log, "Redis", "running jobs go on, no new ones start")
        self._line = asyncio.Lock()
        self._bell = asyncio.Event()
        self._waiting: asyncio.Task[None] | None = None
        self._execute: Callable[..., Awaitable[Any]] = client.execute_command
        self._loop = asyncio.get_running_loop()
        self._fetching = self._loop.create_task(self._run(), name="fetch")
        self._tending = self._loop.create_task(self._tend(), name="tend")

    # What Celery's thread calls; each returns at once.

    def ack(self, tag: int) -> None:
        """The job has ended, or is none: its lease is removed with the next round trip."""
        self._acks.append(tag)
        self._ring()

    def serve(self, queues: list[str]) -> None:
        """From now on jobs come from these queues, in this order; an empty list pauses."""
        self._queues = queues
        self._open = bool(queues)
        self._ring()

    def _ring(self) -> None:
        if not self._bell.is_set():
            self._loop.call_soon_threadsafe(self._bell.set)

    @property
    def held(self) -> int:
        """How many jobs this worker holds the lease of."""
        return len(self._held)

    # What the door of a job calls, on the loop.

    async def defer(self, tag: int, wait_ms: int) -> None:
        """The job is on the due-list and no longer ours; what becomes of `tag` has no effect.

        Tries until the server answers: the record says already that the job is deferred.
        """
        job_id = self._held.get(tag)
        if job_id is None:
            return
        command = scripts.defer(self._keys, owner=self.owner, job_id=job_id, wait_ms=wait_ms)
        while True:
            try:
                async with self._line:
                    await scripts.run_async(self._client, command)
                    self._held.pop(tag, None)
                    return
            except (RedisError, OSError) as error:
                self._silence.missed(error)
                await asyncio.sleep(self._idle_s / 4)

    def drop(self, tag: int) -> None:
        """The lease of this job is renewed no more; when it lapses, the job goes to its queue."""
        self._held.pop(tag, None)

    async def restore(self, tags: list[int]) -> None:
        """The jobs are back at the head of their queues; unreachable servers restore by lease."""
        ids = [job_id for tag in tags if (job_id := self._held.pop(tag, None)) is not None]
        for first in range(0, len(ids), 500):
            command = scripts.restore(self._keys, owner=self.owner, ids=ids[first : first + 500])
            try:
                await scripts.run_async(self._client, command)
            except (RedisError, OSError) as error:
                log.warning("%d jobs return when their leases lapse: %s", len(ids), error)
                return

    async def bury(self, tag: int, reason: str) -> None:
        """The message of a held job is a dead letter with its reason; `ack` ends its lease."""
        stored = await self._execute("HGET", self._keys.messages(), self._held[tag])
        queue, _, raw = (stored or b"").partition(b"\n")
        log.warning("dead letter from %s: %s", queue.decode(), reason)
        head = f"{now_ms()}\n{queue.decode()}\n{reason}\n".encode()
        await self._execute("LPUSH", self._keys.dead(), head + raw)

    async def close(self) -> None:
        """Acks are sent, what is still held is given back, both tasks have ended."""
        self._closing = True
        self._open = False
        self._bell.set()
        # A fetch under way is waited for: cancelled, its jobs would wait for their leases to lapse.
        await asyncio.wait({self._fetching}, timeout=5)
        for task in (self._fetching, self._tending, self._waiting):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        with suppress(RedisError, OSError):
            while self._acks:
                await self._round_trip(0)
        await self.restore(list(self._held))
        with suppress(RedisError, OSError):
            await self._execute("DEL", self._keys.worker(self.owner))
        await self._client.aclose()
        await self._waker.close()

    # The line itself.

    async def _run(self) -> None:
        pause_s = 0.05
        while not self._closing:
            self._bell.clear()
            want = self._want()
            if want < BATCH and 0 < len(self._acks) < 16 and len(self._held) > BATCH:
                await asyncio.sleep(LINGER_S)
                want = self._want()
            try:
                fetched = await self._round_trip(want)
                pause_s = 0.05
                self._silence.heard()
            except (RedisError, OSError) as error:
                self._silence.missed(error)
                await asyncio.sleep(pause_s)
                pause_s = min(1.0, pause_s * 2)
                continue
            if fetched.taken or self._acks:
                continue
            idle_s = self._idle_s
            if fetched.next_due_ms is not None:
                idle_s = min(idle_s, fetched.next_due_ms / 1000 + 0.001)
            await self._idle(idle_s)

    def _want(self) -> int:
        free = self._slots - len(self._held) + len(self._acks)
        return max(0, min(BATCH, free)) if self._open else 0

    async def _round_trip(self, want: int) -> scripts.Fetched:
        """Sends up to 500 acks and takes up to `want` jobs, in one call."""
        tags = [self._acks.popleft() for _ in range(min(500, len(self._acks)))]
        ids = [job_id for tag in tags if (job_id := self._held.get(tag)) is not None]
        command = scripts.fetch(
            self._keys,
            owner=self.owner,
            lease_ms=self._lease_ms,
            want=want,
            queues=self._queues if want else (),
            acked=ids,
        )
        try:
            async with self._line:
                fetched = await scripts.run_async(self._client, command)
        except BaseException:
            self._acks.extendleft(reversed(tags))
            raise
        for tag in tags:
            self._held.pop(tag, None)
        await self._receive(fetched.taken)
        return fetched

    async def _receive(self, taken: list[scripts.Taken]) -> None:
        arrivals, rest = [], []
        for job in taken:
            self._next_tag += 1
            tag = self._next_tag
            self._held[tag] = job.id
            try:
                content = message.read(job.message)
            except UnreadableMessage as error:
                rest.append((tag, self._bury_unread(tag, error.reason)))
                continue
            wait_ms = (content.not_before_ms or 0) - now_ms()
            if wait_ms > 0:
                # Celery would keep it in this process until then, beyond any prefetch limit.
                rest.append((tag, self.defer(tag, wait_ms)))
                continue
            arrivals.append(Arrival(tag, job.id, job.queue, job.crashes, content))
        if arrivals:
            self._on_arrival(arrivals)
        for tag, act in rest:
            try:
                await act
            except (RedisError, OSError) as error:
                # Without a renewal its lease lapses, and it is met again.
                self.drop(tag)
                self._silence.missed(error)

    async def _bury_unread(self, tag: int, reason: str) -> None:
        await self.bury(tag, reason)
        self._acks.append(tag)

    async def _idle(self, idle_s: float) -> None:
        """Returns when there may be work: a bell, a wake token, or `idle_s` gone by."""
        bell = self._loop.create_task(self._bell.wait())
        tasks: set[asyncio.Task[Any]] = {bell}
        if self._open and self._want():
            if self._waiting is None or self._waiting.done():
                self._waiting = self._loop.create_task(self._waker.wait(self._queues))
            tasks.add(self._waiting)
        try:
            await asyncio.wait(tasks, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            bell.cancel()

    async def _tend(self) -> None:
        renewed_at = time.monotonic()
        alive = self._keys.worker(self.owner)
        while True:
            await asyncio.sleep(self._idle_s)
            try:
                pipe = self._client.pipeline(transaction=False)
                pipe.set(alive, str(len(self._held)), px=5000)
                pipe.exists(self._keys.cancels())
                _, cancels = await pipe.execute()
                if cancels or time.monotonic() - renewed_at >= self._lease_ms / 3000:
                    await self._renew()
                    renewed_at = time.monotonic()
            except (RedisError, OSError) as error:
                self._silence.missed(error)

    async def _renew(self) -> None:
        held = {job_id: tag for tag, job_id in list(self._held.items())}
        ids = list(held)
        for first in range(0, len(ids), 1000):
            chunk = ids[first : first + 1000]
            command = scripts.renew(
                self._keys, owner=self.owner, lease_ms=self._lease_ms, ids=chunk
            )
            async with self._line:
                renewed = await scripts.run_async(self._client, command)
            for job_id in renewed.lost:
                log.warning("job %s: another worker has its lease; stopped here", job_id)
                self._on_stop(held[job_id], "lost")
            for job_id in renewed.cancelled:
                self._on_stop(held[job_id], "cancelled")
