"""Fetches jobs from the broker and acknowledges finished ones, with one Lua call per round trip.

The fetcher is a coroutine on the pool's event loop and has connections of its own. Leases and
acknowledgements do not depend on Celery's connection, which may break and come back.
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

from headgate.shared.broker import dead_letters, script
from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker.dead_letters import Waiter
from headgate.shared.broker.jobs import Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import in_turn
from headgate.shared.errors import UnreadableMessage, place_of
from headgate.workers.clients.in_flight import InFlight
from headgate.workers.clients.outage_log import OutageLog
from headgate.workers.delivery import message
from headgate.workers.delivery.leases import Leases, StopReason, log_dead_letter
from headgate.workers.delivery.message import Arrival, Readable
from headgate.workers.delivery.refused import waiter_of_raw
from headgate.workers.delivery.wakeup import Wakeup, end
from headgate.workers.delivery.wrong_type import name_wrong_key

log = logging.getLogger("headgate.fetcher")

TOO_LARGE = "it is too large"

BATCH = 64
"""Most jobs per round trip. More would keep the server busy for longer and deliver no faster."""

ACKS = 500
"""Most acknowledgements per round trip."""

IDLE_S = 1.0
"""Longest pause of an idle worker between two fetches; at most a sixth of a lease. The scripts take
a third of a lease without any call for an outage of the server, and let no lease lapse then."""

FETCH_S = 2.0
"""How long closing waits for a fetch under way."""

LOG_AGAIN_S = 60.0
"""How often the log repeats that a key has the wrong type."""

PAUSE_S = 0.08
"""Pause between two fetches while a limit is used up; acks wait for the next one. A provider's
bucket holds half a second of its rate, so no tokens are lost meanwhile."""

LISTS_S = 0.1
"""How often the sub-lists of messages with a `priority` are looked at while they are empty."""

LINGER_S = 0.002
"""With few acks and no free slot, wait this long for more acks to share the round trip."""


class Fetcher:
    """Holds at most `slots` jobs at a time, each with a lease of `lease_ms` on the server.

    It fetches no more once their messages and answers have `max_bytes` together. A job takes 2.4
    times its message of memory, and more of its answer. If a worker runs out of memory, all its
    jobs count that as a crash.
    `idle_s`: the longest pause of an idle worker between two fetches, whoever wakes it.
    `result_ttl_s`: how long callers find that their message was refused. `on_refused` is called
    with the id of such a message.
    """

    def __init__(
        self, client: redis.asyncio.Redis, wakeup: Wakeup, keys: Keys, *,
        owner: str, slots: int, lease_ms: int, max_bytes: int,
        on_arrival: Callable[[list[Arrival]], None],
        on_stop: Callable[[int, StopReason], None],
        handicaps_ms: tuple[int, int] = broker_jobs.HANDICAPS_MS,
        idle_s: float = IDLE_S, result_ttl_s: int = 86_400,
    ) -> None:  # fmt: skip
        self.owner = owner
        self._handicaps_ms = handicaps_ms
        self._client = client
        self._wakeup = wakeup
        self._keys = keys
        self._slots = slots
        self._lease_ms = lease_ms
        self._idle_s = min(idle_s, lease_ms / 6000)
        self._result_ttl_s = result_ttl_s
        self._on_arrival = on_arrival
        self.on_refused: Callable[[str], None] = lambda _job_id: None
        self._outage_log = OutageLog(log, "Redis", "running jobs go on, no new ones start")
        self.leases = Leases(
            client, keys, worker=owner, lease_ms=lease_ms, tick_s=self._idle_s, on_stop=on_stop,
            outage_log=self._outage_log,
        )  # fmt: skip
        self.in_flight = InFlight(max_bytes, lambda: self.leases.held_bytes)
        self._queues: list[str] = []
        self._acks: deque[int] = deque()
        self._acking: set[int] = set()
        self._trips = count()
        self._lists_at = 0.0
        self._log_again_at: dict[str, float] = {}
        self._closing = False
        self._bell = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._fetching = self._loop.create_task(self._run(), name="fetch")
        self._renewing = self._loop.create_task(self.leases.run(), name="leases")

    def ack(self, tag: int) -> None:
        """Remove the lease of this job with the next round trip, unless the job is to go back.

        The pool acknowledges jobs that go back as well.
        """
        if tag not in self.leases.returning:
            self._acks.append(tag)
            self._bell.set()

    # Celery's thread calls these two; each returns at once.

    def serve(self, queues: list[str]) -> None:
        """Fetch from these queues from now on, in the order of priority. An empty list pauses."""
        self._queues = self.leases.served = queues
        self._ring()

    def resize(self, slots: int) -> None:
        """Hold at most `slots` jobs from now on. If more are held, they end first."""
        self._slots = slots
        self._ring()

    def _ring(self) -> None:
        if not self._bell.is_set():
            self._loop.call_soon_threadsafe(self._bell.set)

    @property
    def held(self) -> int:
        """The number of jobs whose lease this worker holds."""
        return len(self.leases.held)

    @property
    def left_behind(self) -> int:
        """The number of jobs that return only when their leases lapse; for use after `close`."""
        return self.held + self.leases.on_their_way + self.leases.lapsing

    async def close(self) -> None:
        """End both tasks, send the acks, and give back the jobs that are still held."""
        self._closing = True
        self._queues = []
        self.leases.served = ()
        self._bell.set()
        # Wait for a fetch under way: if cancelled, its jobs would wait for their leases to lapse.
        await asyncio.wait({self._fetching}, timeout=FETCH_S)
        await end(self._fetching)
        await end(self._renewing)
        await self._wakeup.close()
        with suppress(RedisError, OSError):
            while self._acks:
                await self._round_trip(0)
        await self.leases.leave()
        await self._client.aclose()

    # The fetch loop.

    async def _run(self) -> None:
        pause_s, returned = 0.05, False
        while not self._closing:
            self._bell.clear()
            try:
                want = self._want()
                if want < BATCH and 0 < len(self._acks) < 16 and self.held > BATCH:
                    await asyncio.sleep(LINGER_S)
                    want = self._want()
                if returned:
                    # Redis may have lost its memory, or loaded an older copy in which the jobs
                    # that run here are queued. Renewing first keeps others from fetching them.
                    await self.leases.renew()
                fetched = await self._round_trip(want)
                pause_s, returned = 0.05, False
                self._outage_log.answered()
                if len(fetched.taken) < want and not fetched.more:
                    await self._idle(fetched.next_due_ms)
                elif not want and not self._acks:
                    await self._idle(None)
                continue
            except (RedisError, OSError) as error:
                returned = not isinstance(error, ResponseError)  # a refusal is no outage
                self._outage_log.failed(await name_wrong_key(self._client, self._keys, error))
                if returned:
                    self._wakeup.forget()
            except Exception:
                log.exception("fetching went wrong; trying again")
            await asyncio.sleep(pause_s)
            pause_s = min(1.0, pause_s * 2)

    def _want(self) -> int:
        free = self._slots - self.held + len(self._acks)
        return max(0, min(BATCH, free)) if self._queues and self._bytes_left() > 0 else 0

    def _bytes_left(self) -> int:
        """Return how many bytes of messages may still be fetched."""
        held = self.leases.held
        acked = sum(held[tag].size for tag in self._acks if tag in held)
        return self.in_flight.left + acked

    async def _round_trip(self, want: int) -> broker_jobs.Fetched:
        """Send the acks that wait and fetch up to `want` jobs, in one call."""
        budget = min(broker_jobs.MAX_REPLY_BYTES, self._bytes_left())
        tags = [self._acks.popleft() for _ in range(min(ACKS, len(self._acks)))]
        self._acking = set(tags)
        trip = next(self._trips)
        owner = f"{self.owner}#{trip}"
        try:
            async with self.leases.lock:
                held = self.leases.held
                queues = in_turn(self._queues, trip) if want else ()
                self._wakeup.before_fetch(queues)
                command = broker_jobs.fetch(
                    self._keys,
                    owner=owner,
                    lease_ms=self._lease_ms,
                    want=want,
                    queues=queues,
                    acked=[held[tag] for tag in tags if tag in held],
                    max_reply_bytes=budget,
                    handicaps_ms=self._handicaps_ms,
                    endings=self._endings() if queues else (),
                )
                fetched = await script.run_async(self._client, command)
                if fetched.listed:
                    self._lists_at = 0.0
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
        await self._receive(jobs, fetched.server_ms)
        await self._reject(fetched)
        return fetched

    def _endings(self) -> tuple[str, ...]:
        """Return the endings of the sub-lists to look at: none if they were empty just now."""
        now = self._loop.time()
        if now < self._lists_at:
            return ()
        self._lists_at = now + LISTS_S
        return self._keys.sub_lists.endings

    async def _receive(self, jobs: list[tuple[int, broker_jobs.Taken]], now_ms: int) -> None:
        """Hand on the jobs that can start now; bury or defer the others."""
        arrivals, rest = [], []
        for tag, job in jobs:
            content = _content_of(job.message)
            if isinstance(content, str):
                waiter = waiter_of_raw(job.message, self._result_ttl_s)
                rest.append((tag, self.leases.bury(tag, content, waiter)))
                if waiter is not None:
                    self.on_refused(waiter.job_id)
                continue
            wait_ms = content.wait_ms(now_ms)
            if wait_ms > 0:
                # Celery would keep it in memory until then, outside any prefetch limit.
                rest.append((tag, self.leases.defer(tag, wait_ms, unsent=True)))
                continue
            arrivals.append(Arrival(tag, job.id, job.queue, job.crashes, content, job.grant))
        if arrivals and self._queues:
            self._on_arrival(arrivals)
        elif arrivals:  # paused since the fetch began
            tags = [arrival.tag for arrival in arrivals]
            rest.append((0, self.leases.restore(tags, unsent=True)))
        for tag, act in rest:
            try:
                await act
            except (RedisError, OSError) as error:
                # Its lease lapses without a renewal, and the job is fetched again.
                self.leases.drop(tag)
                self._outage_log.failed(error)

    async def _reject(self, fetched: broker_jobs.Fetched) -> None:
        """Log the messages that were too large, and the queues that are not lists."""
        for buried in fetched.large:
            log_dead_letter(buried, TOO_LARGE)
            if buried.job_id:
                waiter = Waiter(buried.job_id, self._result_ttl_s)
                command = dead_letters.refuse(self._keys, waiter, TOO_LARGE)
                await script.run_async(self._client, command)
                self.on_refused(buried.job_id)
        for key in fetched.wrong:
            if self._loop.time() >= self._log_again_at.get(key, 0):
                self._log_again_at[key] = self._loop.time() + LOG_AGAIN_S
                log.error("%s is no list: no jobs come from it; remove or rename this key", key)

    async def _idle(self, next_due_ms: int | None) -> None:
        """Wait until there may be work, at most `IDLE_S`."""
        idle_s = self._idle_s
        if next_due_ms is not None:
            # The pause varies by chance: a bucket that fills wakes all workers at once, and one
            # call hands out what it has gathered meanwhile.
            pause_s = PAUSE_S * random.uniform(0.5, 1.5)  # noqa: S311  # nothing secret
            idle_s = min(idle_s, max(next_due_ms / 1000 + 0.001, pause_s))
        want = self._want()
        bell = asyncio.Event() if want and idle_s < 2 * PAUSE_S else self._bell
        await self._wakeup.idle(bell, self._queues if want else (), idle_s)


def _content_of(raw: bytes) -> Readable | str:
    """Return the checked message, or the reason why it cannot be read."""
    try:
        return message.read(raw)
    except UnreadableMessage as error:
        return error.reason
    except Exception as error:  # our own fault, which must not delay the other jobs
        return place_of(error)
