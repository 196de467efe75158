"""A worker's line to the broker: one Lua call per round trip, acks of finished jobs out, jobs in.

It is a coroutine on the pool's event loop with connections of its own. Celery's connection may
break and come back without a job noticing: leases and acknowledgements do not depend on it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.jobs import Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import in_turn
from headgate.shared.errors import UnreadableMessage, place_of
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.delivery import message
from headgate.workers.delivery.leases import Leases, StopReason, tell_of
from headgate.workers.delivery.message import Arrival
from headgate.workers.delivery.wakeup import Wakeup, end
from headgate.workers.delivery.wrong_type import named

log = logging.getLogger("headgate.fetcher")

BATCH = 64
"""Jobs per round trip: more holds the server longer and delivers no faster (admission.md, B)."""

ACKS = 500
"""Acknowledgements per round trip."""

IDLE_S = 1.0
"""How often an idle worker looks by itself, at least six times in a lease: a third of a lease
without any call counts as a silence of the server, and lets no lease lapse."""

FETCH_S = 2.0
"""At the end: how long a fetch under way is waited for."""

WRONG_AGAIN_S = 60.0
"""How often a key of the wrong type is told of."""

PAUSE_S = 0.08
"""Between two looks at a limit that is used up; acks wait for the next. A provider's bucket holds
half a second of its rate: nothing is lost, and a call hands out what the pause has brought."""

LINGER_S = 0.002
"""With few acks to send and no slot free, wait this long for more to share the round trip."""


class Fetcher:
    """Holds at most `slots` jobs at a time, each with a lease of `lease_ms` on the server.

    Once their messages have `max_bytes` together no more come: a job takes 2.4 times its message of
    memory, and a worker that dies of too much counts against all jobs that it held.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        waker: Wakeup,
        keys: Keys,
        *,
        owner: str,
        slots: int,
        lease_ms: int,
        max_bytes: int,
        on_arrival: Callable[[list[Arrival]], None],
        on_stop: Callable[[int, StopReason], None],
        handicaps_ms: tuple[int, int] = broker_jobs.HANDICAPS_MS,
    ) -> None:
        self.owner = owner
        self._handicaps_ms = handicaps_ms
        self._client = client
        self._waker = waker
        self._keys = keys
        self._slots = slots
        self._lease_ms = lease_ms
        self._max_bytes = max_bytes
        self._idle_s = min(IDLE_S, lease_ms / 6000)
        self._on_arrival = on_arrival
        self._silence = OutageLog(log, "Redis", "running jobs go on, no new ones start")
        self.leases = Leases(
            client,
            keys,
            worker=owner,
            lease_ms=lease_ms,
            tick_s=self._idle_s,
            on_stop=on_stop,
            silence=self._silence,
        )
        self._queues: list[str] = []
        self._acks: deque[int] = deque()
        self._acking: set[int] = set()
        self._trips = count()
        self._wrong: dict[str, float] = {}
        self._closing = False
        self._bell = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fetching = self._loop.create_task(self._run(), name="fetch")
        self._tending = self._loop.create_task(self.leases.tend(), name="tend")

    # What Celery's thread calls; each returns at once.

    def ack(self, tag: int) -> None:
        """The job has ended, or is none: its lease is removed with the next round trip.

        Celery acknowledges also what is to go back.
        """
        if tag not in self.leases.returning:
            self._acks.append(tag)
            self._ring()

    def serve(self, queues: list[str]) -> None:
        """From now on jobs come from these queues, urgent first; an empty list pauses."""
        self._queues = queues
        self._ring()

    def resize(self, slots: int) -> None:
        """From now on at most `slots` jobs are held; what is held over that ends first."""
        self._slots = slots
        self._ring()

    def _ring(self) -> None:
        if not self._bell.is_set():
            self._loop.call_soon_threadsafe(self._bell.set)

    @property
    def held(self) -> int:
        """How many jobs this worker holds the lease of."""
        return len(self.leases.held)

    @property
    def left_behind(self) -> int:
        """After the end: how many jobs return only when their leases lapse."""
        return self.held + self.leases.going + self.leases.lapsing

    async def give_back_others(self, running: set[int]) -> None:
        """What neither runs nor has ended is back at the head of its queue."""
        self.leases.lapsing = 0
        busy = running.union(self._acks, self._acking)
        idle = [tag for tag in self.leases.held if tag not in busy]
        await self.leases.restore(idle, unsent=True)

    async def close(self) -> None:
        """Acks are sent, what is still held is given back, both tasks have ended."""
        self._closing = True
        self._queues = []
        self._bell.set()
        # A fetch under way is waited for: cancelled, its jobs would wait for their leases to lapse.
        await asyncio.wait({self._fetching}, timeout=FETCH_S)
        await end(self._fetching)
        await end(self._tending)
        await self._waker.close()
        with suppress(RedisError, OSError):
            while self._acks:
                await self._round_trip(0)
        await self.leases.leave()
        await self._client.aclose()

    # The line itself.

    async def _run(self) -> None:
        pause_s, returned = 0.05, False
        while not self._closing:
            self._bell.clear()
            want = self._want()
            if want < BATCH and 0 < len(self._acks) < 16 and self.held > BATCH:
                await asyncio.sleep(LINGER_S)
                want = self._want()
            try:
                if returned:
                    # It may have come back empty, or from an older copy of its memory in which
                    # jobs that run here are queued: they are ours before anyone fetches them.
                    await self.leases.renew()
                fetched = await self._round_trip(want)
                returned = False
            except (RedisError, OSError) as error:
                returned = not isinstance(error, ResponseError)  # refused: it never was away
                self._silence.missed(await named(self._client, self._keys, error))
                if returned:
                    self._waker.forget()
            except Exception:
                log.exception("fetching went wrong; it is tried again")
            else:
                pause_s = 0.05
                self._silence.heard()
                if len(fetched.taken) < want and not fetched.more:
                    await self._idle(fetched.next_due_ms)
                elif not want and not self._acks:
                    await self._idle(None)
                continue
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2)

    def _want(self) -> int:
        free = self._slots - self.held + len(self._acks)
        return max(0, min(BATCH, free)) if self._queues and self._room() > 0 else 0

    def _room(self) -> int:
        """Bytes of messages that may still come."""
        held = self.leases.held
        going = sum(held[tag].size for tag in self._acks if tag in held)
        return self._max_bytes - self.leases.held_bytes + going

    async def _round_trip(self, want: int) -> broker_jobs.Fetched:
        """Sends the acks that wait and takes up to `want` jobs, in one call."""
        budget = min(broker_jobs.MAX_REPLY_BYTES, self._room())
        tags = [self._acks.popleft() for _ in range(min(ACKS, len(self._acks)))]
        self._acking = set(tags)
        trip = next(self._trips)
        owner = f"{self.owner}#{trip}"
        try:
            async with self.leases.line:
                held = self.leases.held
                command = broker_jobs.fetch(
                    self._keys,
                    owner=owner,
                    lease_ms=self._lease_ms,
                    want=want,
                    queues=in_turn(self._queues, trip) if want else (),
                    acked=[held[tag] for tag in tags if tag in held],
                    max_reply_bytes=budget,
                    handicaps_ms=self._handicaps_ms,
                )
                fetched = await script.run_async(self._client, command)
                for tag in tags:
                    self.leases.drop(tag)
                jobs = [
                    (self.leases.add(Lease(job.id, owner, len(job.message))), job)
                    for job in fetched.taken
                ]
        except BaseException:
            self._acks.extendleft(reversed(tags))
            raise
        finally:
            self._acking = set()
        self._tell(fetched)
        await self._receive(jobs, fetched.server_ms)
        return fetched

    async def _receive(self, jobs: list[tuple[int, broker_jobs.Taken]], now_ms: int) -> None:
        arrivals, rest = [], []
        for tag, job in jobs:
            try:
                content = message.read(job.message)
            except UnreadableMessage as error:
                rest.append((tag, self.leases.bury(tag, error.reason)))
                continue
            except Exception as error:  # a fault of ours, for which the others must not wait
                rest.append((tag, self.leases.bury(tag, place_of(error))))
                continue
            wait_ms = (content.not_before_ms or 0) - now_ms
            if wait_ms > 0:
                # Celery would keep it in this process until then, beyond any prefetch limit.
                rest.append((tag, self.leases.defer(tag, wait_ms, unsent=True)))
                continue
            arrivals.append(Arrival(tag, job.id, job.queue, job.crashes, content, job.grant))
        if arrivals and self._queues:
            self._on_arrival(arrivals)
        elif arrivals:  # paused meanwhile
            tags = [arrival.tag for arrival in arrivals]
            rest.append((0, self.leases.restore(tags, unsent=True)))
        for tag, act in rest:
            try:
                await act
            except (RedisError, OSError) as error:
                # Without a renewal its lease lapses, and it is met again.
                self.leases.drop(tag)
                self._silence.missed(error)

    def _tell(self, fetched: broker_jobs.Fetched) -> None:
        for buried in fetched.large:
            tell_of(buried, "it is too large")
        for key in fetched.wrong:
            if self._loop.time() >= self._wrong.get(key, 0):
                self._wrong[key] = self._loop.time() + WRONG_AGAIN_S
                log.error("%s is no list: nothing comes from it; remove or rename it", key)

    async def _idle(self, next_due_ms: int | None) -> None:
        """Returns when there may be work, after a while at the latest."""
        idle_s = self._idle_s
        if next_due_ms is not None:
            # A little more each time, by chance: a bucket that fills wakes all workers at once, and
            # what it has gathered meanwhile is handed out in one call.
            pause_s = PAUSE_S * random.uniform(0.5, 1.5)  # noqa: S311  # nothing secret
            idle_s = min(idle_s, max(next_due_ms / 1000 + 0.001, pause_s))
        want = self._want()
        bell = asyncio.Event() if want and idle_s < 2 * PAUSE_S else self._bell
        await self._waker.idle(bell, self._queues if want else (), idle_s)
