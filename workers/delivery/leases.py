"""Keeps the leases of the jobs that this worker holds: renews them, and defers or returns jobs.

Every call that moves a lease holds `lock`. Otherwise a renewal could bring a lease back to life
that another call is about to end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Literal

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError, ResponseError

from headgate.shared.broker import dead_letters, jobs, living, script
from headgate.shared.broker.dead_letters import Waiter
from headgate.shared.broker.jobs import Buried, Lease
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.delivery.wrong_type import name_wrong_key

log = logging.getLogger("headgate.leases")

CHUNK = 500
"""Most leases in one call of a script."""

StopReason = Literal["cancelled", "lost", "shutdown", "timeout"]


def log_dead_letter(buried: Buried, reason: str) -> None:
    """Log a new dead letter, with nothing of its content."""
    facts = (buried.letter, buried.queue, buried.size, reason)
    log.warning("dead letter %s from %s (%d bytes): %s", *facts)


class Leases:
    """Leases of `lease_ms` on the server, by tag: the number of the job in this process.

    `on_stop` stops a job whose lease is lost or that is cancelled. `on_their_way` is the number of
    jobs whose return is not answered yet.
    `served` are the queues that this worker fetches from, and `providers` those of which it has a
    key; None until that is known. The worker's sign repeats both.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        *,
        worker: str,
        lease_ms: int,
        tick_s: float,
        on_stop: Callable[[int, StopReason], None],
        outage_log: OutageLog,
    ) -> None:
        self._client = client
        self._keys = keys
        self._worker = worker
        self._lease_ms = lease_ms
        self._tick_s = tick_s
        self._on_stop = on_stop
        self._outage_log = outage_log
        self._next_tag = 0
        self._execute: Callable[..., Awaitable[Any]] = client.execute_command
        self._renewed_at = 0.0
        self._awake_at = math.inf
        self._late_at = 0.0
        self.held: dict[int, Lease] = {}
        self.held_bytes = 0
        self.returning: set[int] = set()
        self._lapsing: list[tuple[float, int]] = []
        self.on_their_way = 0
        self.has_left = False
        self.served: Sequence[str] = ()
        self.providers: Collection[str] | None = None
        self.lock = asyncio.Lock()

    def add(self, lease: Lease) -> int:
        """Add a lease just taken, and return its tag.

        Stops an older run of the same job in this process: it lost its lease while this process
        was frozen.
        """
        for tag, other in list(self.held.items()) if self._may_have_lapsed else ():
            if other.id == lease.id:
                log.warning("job %s: its lease had lapsed; stopping the older run", lease.id)
                self.drop(tag)
                self._on_stop(tag, "lost")
        self._next_tag += 1
        self.held[self._next_tag] = lease
        self.held_bytes += lease.size
        return self._next_tag

    def drop(self, tag: int) -> None:
        """Stop renewing the lease of this job. When it lapses, the job returns to its queue."""
        self._remove(tag)

    def _remove(self, tag: int) -> Lease | None:
        if (lease := self.held.pop(tag, None)) is not None:
            self.held_bytes -= lease.size
        return lease

    async def defer(
        self, tag: int, wait_ms: int, ticket: str = "", *, unsent: bool = False
    ) -> None:
        """Put the job on the due list for `wait_ms`; then it waits for what `ticket` asks.

        `unsent`: nothing was sent to a provider, so the job's hold on budgets is released. Tries
        until the server answers, because the database says already that the job is deferred.
        """
        while (lease := self.held.get(tag)) is not None:
            try:
                async with self.lock:
                    command = jobs.defer(
                        self._keys, lease=lease, wait_ms=wait_ms, ticket=ticket, unsent=unsent
                    )
                    await script.run_async(self._client, command)
                    self.drop(tag)
            except (RedisError, OSError) as error:
                self._outage_log.failed(error)
                await asyncio.sleep(self._tick_s / 4)

    async def restore(self, tags: list[int], *, unsent: bool = False) -> None:
        """Return the jobs to the head of their queues. If Redis fails, they return on lapsing."""
        async with self.lock:
            leases = [lease for tag in tags if (lease := self._remove(tag)) is not None]
            self.on_their_way += len(leases)
            try:
                # From the last chunk to the first, since each goes to the head of the queue.
                for first in reversed(range(0, len(leases), CHUNK)):
                    chunk = leases[first : first + CHUNK]
                    command = jobs.restore(self._keys, leases=chunk, unsent=unsent)
                    await script.run_async(self._client, command)
                self.on_their_way -= len(leases)
            except (RedisError, OSError) as error:
                self.on_their_way -= len(leases)
                self._lapsing.append((time.monotonic() + self._lease_ms / 1000, len(leases)))
                log.warning("%d jobs return when their leases lapse: %s", len(leases), error)

    @property
    def lapsing(self) -> int:
        """The number of jobs that could not be given back, and whose leases may still run."""
        now = time.monotonic()
        self._lapsing = [(until, count) for until, count in self._lapsing if now < until]
        return sum(count for _, count in self._lapsing)

    async def bury(self, tag: int, reason: str, waiter: Waiter | None = None) -> None:
        """Make the message of a held job a dead letter with this reason, and end its lease.

        `waiter` finds a failure with the reason in Celery's results, unless there is a result.
        Tries until the server answers. If Redis refuses, the lease lapses and the job comes again.
        """
        while (lease := self.held.get(tag)) is not None:
            try:
                async with self.lock:
                    command = dead_letters.bury(
                        self._keys, lease=lease, reason=reason, waiter=waiter
                    )
                    buried = await script.run_async(self._client, command)
                    self.drop(tag)
                if buried is not None:
                    log_dead_letter(buried, reason)
            except ResponseError as error:
                self.drop(tag)
                refusal = await name_wrong_key(self._client, self._keys, error)
                log.error("Redis refused a dead letter: %s", refusal)
            except (RedisError, OSError) as error:
                self._outage_log.failed(error)
                await asyncio.sleep(self._tick_s / 4)

    async def run(self) -> None:
        """Report that this worker lives, look for cancellations and renew, until cancelled.

        Leases are renewed after each third of their length.
        """
        self._renewed_at = self._awake_at = time.monotonic()
        ticking = asyncio.create_task(self._tick(), name="tick")
        try:
            await self._keep_renewing()
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            now = time.monotonic()
            if self._was_frozen(now):
                self._late_at = now
            self._awake_at = now

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            try:
                text = living.sign_text(len(self.held), self.served, self.providers)
                sign = living.sign(self._keys, self._worker, text)
                pipe = self._client.pipeline(transaction=False)
                pipe.execute_command(*sign.by_sha())
                pipe.exists(self._keys.cancels())
                signed, cancels = await pipe.execute(raise_on_error=False)
                if isinstance(signed, NoScriptError):
                    await script.run_async(self._client, sign)
                elif isinstance(signed, RedisError):
                    self._outage_log.failed(await name_wrong_key(self._client, self._keys, signed))
                if isinstance(cancels, RedisError):
                    raise cancels
                if cancels or time.monotonic() - self._renewed_at >= self._lease_ms / 3000:
                    await self.renew()
                    self._renewed_at = time.monotonic()
            except (RedisError, OSError) as error:
                self._outage_log.failed(await name_wrong_key(self._client, self._keys, error))
            except Exception:
                log.exception("renewing leases went wrong; trying again")

    @property
    def _may_have_lapsed(self) -> bool:
        """True if leases may have lapsed unnoticed: this process did not renew them in time."""
        return time.monotonic() - self._renewed_at >= self._lease_ms / 1000

    def _was_frozen(self, now: float) -> bool:
        """Return True if this process did nothing for so long that others may have its jobs.

        An outage of the server is different: it may come back with an empty memory.
        """
        return now - self._awake_at >= self._lease_ms / 2000

    async def renew(self) -> None:
        """Renew all leases, and stop the jobs that are lost or cancelled."""
        tags, began = list(self.held), time.monotonic()
        late = self._late_at > 0 or self._was_frozen(began)
        for first in range(0, len(tags), CHUNK):
            async with self.lock:
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
                log.warning("job %s: its lease was lost; stopping it here", job_id)
                self._on_stop(chunk[job_id][0], "lost")
            for job_id in renewed.cancelled:
                self._on_stop(chunk[job_id][0], "cancelled")
        if self._late_at < began:
            self._late_at = 0.0

    async def leave(self) -> None:
        """Return all held jobs to their queues in their order, and sign this worker off."""
        await self.restore(list(self.held))
        try:
            for command in living.sign_off(self._keys, self._worker):
                await self._execute(*command)
            self.has_left = True
        except (RedisError, OSError) as error:
            self._outage_log.failed(error)
