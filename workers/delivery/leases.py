"""The jobs that this worker holds: their leases are renewed, deferred, given back, or lost.

Every call that moves a lease holds `line`, so that a renewal never meets a lease which a call
under way is about to end: it would bring it back to life.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from headgate.shared.broker import dead_letters, jobs, script
from headgate.shared.broker.jobs import Buried, Lease
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.delivery.wrong_type import named

log = logging.getLogger("headgate.leases")

CHUNK = 500
"""Leases in one call of a script."""

ALIVE_MS = 5000
"""How long a worker counts as living after its last sign."""

StopReason = Literal["cancelled", "lost", "shutdown", "timeout"]


def tell_of(buried: Buried, reason: str) -> None:
    """The log has a line about a new dead letter, with nothing of its content."""
    words = (buried.letter, buried.queue, buried.size, reason)
    log.warning("dead letter %s from %s (%d bytes): %s", *words)


class Leases:
    """Leases of `lease_ms` on the server, by tag: the number of a job in this process."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        *,
        worker: str,
        lease_ms: int,
        tick_s: float,
        on_stop: Callable[[int, StopReason], None],
        silence: OutageLog,
    ) -> None:
        self._client = client
        self._keys = keys
        self._worker = worker
        self._lease_ms = lease_ms
        self._tick_s = tick_s
        self._on_stop = on_stop
        self._silence = silence
        self._next_tag = 0
        self._execute: Callable[..., Awaitable[Any]] = client.execute_command
        self._renewed_at = 0.0
        self._awake_at = math.inf
        self._late_at = 0.0
        self.held: dict[int, Lease] = {}
        self.held_bytes = 0
        self.returning: set[int] = set()
        self.lapsing = 0
        self.going = 0
        self.has_left = False
        self.line = asyncio.Lock()

    def add(self, lease: Lease) -> int:
        """The tag of a lease just taken.

        An older run of the same job here has lost its lease (this process was frozen past it).
        """
        for tag, other in list(self.held.items()) if self._froze else ():
            if other.id == lease.id:
                log.warning("job %s: its lease had lapsed; the older run is stopped", lease.id)
                self.drop(tag)
                self._on_stop(tag, "lost")
        self._next_tag += 1
        self.held[self._next_tag] = lease
        self.held_bytes += lease.size
        return self._next_tag

    def drop(self, tag: int) -> None:
        """The lease of this job is renewed no more; when it lapses, the job goes to its queue."""
        self._remove(tag)

    def _remove(self, tag: int) -> Lease | None:
        if (lease := self.held.pop(tag, None)) is not None:
            self.held_bytes -= lease.size
        return lease

    async def defer(
        self, tag: int, wait_ms: int, ticket: str = "", *, unsent: bool = False
    ) -> None:
        """The job is on the due-list and no longer ours; `ticket` is what it waits for from then.
        `unsent`: nothing was sent for it, so that what it holds of budgets goes back.

        Tries until the server answers: the record says already that the job is deferred.
        """
        while (lease := self.held.get(tag)) is not None:
            try:
                async with self.line:
                    command = jobs.defer(
                        self._keys, lease=lease, wait_ms=wait_ms, ticket=ticket, unsent=unsent
                    )
                    await script.run_async(self._client, command)
                    self.drop(tag)
            except (RedisError, OSError) as error:
                self._silence.missed(error)
                await asyncio.sleep(self._tick_s / 4)

    async def restore(self, tags: list[int], *, unsent: bool = False) -> None:
        """The jobs are back at the head of their queues; without an answer, when they lapse."""
        async with self.line:
            leases = [lease for tag in tags if (lease := self._remove(tag)) is not None]
            self.going += len(leases)
            try:
                # From the last chunk to the first: each goes before all that went back earlier.
                for first in reversed(range(0, len(leases), CHUNK)):
                    chunk = leases[first : first + CHUNK]
                    command = jobs.restore(self._keys, leases=chunk, unsent=unsent)
                    await script.run_async(self._client, command)
                self.going -= len(leases)
            except (RedisError, OSError) as error:
                self.going -= len(leases)
                self.lapsing += len(leases)
                log.warning("%d jobs return when their leases lapse: %s", len(leases), error)

    async def bury(self, tag: int, reason: str) -> None:
        """The message of a held job is a dead letter with its reason, and its lease has ended.

        Tries until the server answers; where it refuses, the lease lapses and the job comes again.
        """
        while (lease := self.held.get(tag)) is not None:
            try:
                async with self.line:
                    command = dead_letters.bury(self._keys, lease=lease, reason=reason)
                    buried = await script.run_async(self._client, command)
                    self.drop(tag)
                if buried is not None:
                    tell_of(buried, reason)
            except ResponseError as error:
                self.drop(tag)
                refusal = await named(self._client, self._keys, error)
                log.error("a dead letter was refused: %s", refusal)
            except (RedisError, OSError) as error:
                self._silence.missed(error)
                await asyncio.sleep(self._tick_s / 4)

    async def tend(self) -> None:
        """Shows life, hears of cancellations, renews each third of a lease; until cancelled."""
        self._renewed_at = self._awake_at = time.monotonic()
        ticking = asyncio.create_task(self._tick(), name="tick")
        try:
            await self._tend()
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            now = time.monotonic()
            if self._stands_still(now):
                self._late_at = now
            self._awake_at = now

    async def _tend(self) -> None:
        alive = self._keys.worker(self._worker)
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                pipe = self._client.pipeline(transaction=False)
                pipe.set(alive, str(len(self.held)), px=ALIVE_MS)
                pipe.pexpire(alive, ALIVE_MS)  # a server that is full takes this alone
                pipe.exists(self._keys.cancels())
                *_, cancels = await pipe.execute(raise_on_error=False)
                if isinstance(cancels, RedisError):
                    raise cancels
                if cancels or time.monotonic() - self._renewed_at >= self._lease_ms / 3000:
                    await self.renew()
                    self._renewed_at = time.monotonic()
            except (RedisError, OSError) as error:
                self._silence.missed(await named(self._client, self._keys, error))
            except Exception:
                log.exception("renewing leases went wrong; it is tried again")

    @property
    def _froze(self) -> bool:
        """True when leases may have lapsed unseen: this process did not renew them in time."""
        return time.monotonic() - self._renewed_at >= self._lease_ms / 1000

    def _stands_still(self, now: float) -> bool:
        """True when this process did nothing for so long that others may have ended its jobs.

        A silence of the server is another thing: it may come back with an empty memory.
        """
        return now - self._awake_at >= self._lease_ms / 2000

    async def renew(self) -> None:
        """All leases are as long as new; jobs that are lost or cancelled are being stopped."""
        tags, began = list(self.held), time.monotonic()
        late = self._late_at > 0 or self._stands_still(began)
        for first in range(0, len(tags), CHUNK):
            async with self.line:
                chunk = {
                    lease.id: (tag, lease)
                    for tag in tags[first : first + CHUNK]
                    if (lease := self.held.get(tag)) is not None
                }
                leases = [lease for _, lease in chunk.values()]
                command = jobs.renew(
                    self._keys, lease_ms=self._lease_ms, leases=leases, again=not late
                )
                renewed = await script.run_async(self._client, command)
            for job_id in renewed.lost:
                log.warning("job %s: its lease was lost; stopped here", job_id)
                self._on_stop(chunk[job_id][0], "lost")
            for job_id in renewed.cancelled:
                self._on_stop(chunk[job_id][0], "cancelled")
        if self._late_at < began:
            self._late_at = 0.0

    async def leave(self) -> None:
        """All that is held is given back in its order; this worker shows no more life.

        `lapsing` is how many could not be given back, `going` how many are on their way.
        """
        await self.restore(list(self.held))
        try:
            await self._execute("DEL", self._keys.worker(self._worker))
            self.has_left = True
        except (RedisError, OSError) as error:
            self._silence.missed(error)
