"""No wake-up is lost between looking for jobs and sleeping.

The fetchers here would sleep for five minutes: whatever nobody wakes them for, nobody fetches.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis as AsyncRedis

from headgate.shared.broker import queues
from headgate.shared.broker.keys import Keys
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.message import Arrival
from headgate.workers.delivery.wakeup import Wakeup
from tests.support.rig import BULK, STANDARD, URGENT, Broker, envelope
from tests.support.servers import ValkeyServer

SLEEP_S = 300.0
WOKEN_WITHIN_S = 15.0
"""Shorter than `wakeup.BLOCK_S`: when a read of tokens ends, its worker looks by itself."""
QUEUES = [URGENT, STANDARD, BULK]


class SleepyWorker:
    """A worker that looks for jobs only when it is woken."""

    def __init__(self, server: ValkeyServer, owner: str, slots: int, serves: list[str]) -> None:
        self.slots, self.serves = slots, serves
        self.running: list[int] = []
        self.arrived = asyncio.Event()
        self.fetcher = Fetcher(
            AsyncRedis.from_url(server.url, socket_timeout=5),
            Wakeup(AsyncRedis.from_url(server.url, socket_timeout=None), Keys()),
            Keys(),
            owner=owner,
            slots=slots,
            lease_ms=int(SLEEP_S * 6000),
            max_bytes=1 << 30,
            on_arrival=self._arrive,
            on_stop=lambda _tag, _reason: None,
            idle_s=SLEEP_S,
        )
        self.fetcher.serve(serves)

    def _arrive(self, arrivals: list[Arrival]) -> None:
        self.running += [arrival.tag for arrival in arrivals]
        self.arrived.set()

    def serve(self, serves: list[str]) -> None:
        self.serves = serves
        self.fetcher.serve(serves)

    def finish(self, tag: int) -> None:
        self.running.remove(tag)
        self.fetcher.ack(tag)


@dataclass
class World:
    """Some workers on one server, and what is done to them."""

    server: ValkeyServer
    broker: Broker
    chance: random.Random
    workers: list[SleepyWorker] = field(default_factory=list)
    started: int = 0
    sent: int = 0

    def start(self) -> None:
        self.started += 1
        serves = self.chance.sample(QUEUES, self.chance.randint(1, 3))
        slots = self.chance.choice([1, 2, 5, 20])
        self.workers.append(SleepyWorker(self.server, f"w{self.started}", slots, serves))

    async def send(self, queue: str, count: int) -> None:
        self.sent += count
        await asyncio.to_thread(self._send, queue, count)

    def _send(self, queue: str, count: int) -> None:
        jobs = [envelope(priority=queue.split(".")[1]) for _ in range(count)]
        queues.send(self.broker.client, self.broker.keys, ((job, job.encode()) for job in jobs))

    async def step(self, after_s: float) -> None:
        """Do one thing that workers and producers do, without waiting for what follows."""
        await asyncio.sleep(after_s)
        busy = [worker for worker in self.workers if worker.running]
        match self.chance.choice(("send", "send", "send", "finish", "finish", "serve", "replace")):
            case "finish" if busy:
                worker = self.chance.choice(busy)
                worker.finish(self.chance.choice(worker.running))
            case "serve" if self.chance.random() < 0.2:
                worker = self.chance.choice(self.workers)
                worker.serve(self.chance.sample(QUEUES, self.chance.randint(0, 3)))
            case "replace" if len(self.workers) > 1 and self.chance.random() < 0.1:
                worker = self.workers.pop(self.chance.randrange(len(self.workers)))
                await worker.fetcher.close()
                self.start()
            case _:
                await self.send(self.chance.choice(QUEUES), self.chance.choice([1, 1, 1, 2, 7]))

    async def nothing_waits_beside_an_idle_worker(self) -> None:
        """Whoever has room for a job that waits has been woken for it."""
        loop = asyncio.get_running_loop()
        until = loop.time() + WOKEN_WITHIN_S
        while forgotten := await self._forgotten():
            assert loop.time() < until, f"nobody was woken for {forgotten}"
            await asyncio.sleep(0.01)

    async def _forgotten(self) -> list[str]:
        found = []
        for queue in QUEUES:
            key = self.broker.keys.queue(queue)
            waits = await asyncio.to_thread(self.broker.client.llen, key)
            room = [w.fetcher.owner for w in self.workers
                    if queue in w.serves and w.fetcher.held < w.slots]  # fmt: skip
            if waits and room:
                found.append(f"{waits} jobs of {queue}, with room at {', '.join(room)}")
        return found


@pytest.fixture
async def world(valkey: ValkeyServer) -> AsyncIterator[World]:
    with valkey.client(decode_responses=False) as client:
        client.flushall()
        found = World(valkey, Broker(client), random.Random(0))  # noqa: S311
        yield found
        for worker in found.workers:
            await worker.fetcher.close()


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_waits_beside_an_idle_worker_whatever_the_order(
    world: World, seed: int
) -> None:
    world.chance = random.Random(seed)  # noqa: S311
    for _ in range(3):
        world.start()
    for _ in range(150):
        pauses_s = world.chance.sample((0, 0, 0.0002, 0.0005, 0.001), world.chance.randint(1, 5))
        await asyncio.gather(*map(world.step, pauses_s))
        await world.nothing_waits_beside_an_idle_worker()
    assert world.sent > 100


async def test_of_600_jobs_one_after_the_other_none_waits_beside_an_idle_worker(
    world: World,
) -> None:
    worker = SleepyWorker(world.server, "w", 5, QUEUES)
    world.workers.append(worker)
    await world.send(STANDARD, 1)
    for n in range(600):
        async with asyncio.timeout(WOKEN_WITHIN_S):
            await worker.arrived.wait()
        worker.arrived.clear()
        # The caller hears the result before the worker's acknowledgement is through.
        for tag in list(worker.running):
            worker.finish(tag)
        await asyncio.sleep(world.chance.choice((0, 0.0002, 0.0005, 0.001)))
        if n < 599:
            await world.send(STANDARD, 1)
