"""What the library's calls cost on Redis and through a gateway, and what 1,000 who wait cost.

A played worker ends the jobs and writes the pieces, so no worker takes part. CPU-ms is of the
calling process, without the played worker, and of the gateway. Valkey and SQLite are on this
machine.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from headgate import AsyncClient, Client
from tests.bench.table import Table
from tests.support.both_ways import PlayedHouse, deliver, played_house
from tests.support.servers import short_folder

CALLS, MANY, WAITING, ENDS, PIECES = 400, 5_000, 1_000, 200, 400
IDLE_S = 5.0
COLUMNS = ("", "ms", "CPU-ms", "of the gateway")


@dataclass
class Taken:
    """Wall time and CPU seconds of a block; `played_s` is the played worker's part of the CPU."""

    wall_s: float = 0.0
    own_s: float = 0.0
    gateway_s: float = 0.0
    played_s: float = 0.0
    each_ms: list[float] = field(default_factory=list)

    def cells(self, count: int) -> tuple[str, str, str]:
        """The figures of one of so many calls; the median where each was measured."""
        wall_ms = statistics.median(self.each_ms) if self.each_ms else self.wall_s * 1000 / count
        own_ms = (self.own_s - self.played_s) * 1000 / count
        return f"{wall_ms:.2f}", f"{own_ms:.2f}", f"{self.gateway_s * 1000 / count:.2f}"


def measure() -> Table:
    """The costs of one call of each kind, on both ways."""
    table = Table("clients, on Redis and over HTTP", COLUMNS)
    with short_folder() as folder, played_house(Path(folder)) as house:
        for way in ("Redis", "HTTP"):
            with Client(house.settings) if way == "Redis" else _remote(house) as client:
                _calls(table, way, house, client)
            asyncio.run(_waiting(table, way, house))
    return table


def _remote(house: PlayedHouse) -> Client:
    return Client(base_url=house.gateway.url)


@contextmanager
def _taken(house: PlayedHouse) -> Iterator[Taken]:
    assert house.gateway.process is not None
    gateway = psutil.Process(house.gateway.process.pid)
    found, began = Taken(), time.monotonic()
    own_s, gateway_s = time.process_time(), sum(gateway.cpu_times()[:2])
    yield found
    found.wall_s = time.monotonic() - began
    found.own_s = time.process_time() - own_s
    found.gateway_s = sum(gateway.cpu_times()[:2]) - gateway_s


def _calls(table: Table, way: str, house: PlayedHouse, client: Client) -> None:
    """Submit one by one and in bulk, look at results, and stream."""
    client.submit("warm up")
    with _taken(house) as taken:
        ids = [client.submit(f"prompt {n}").id for n in range(CALLS)]
    table.add(f"submit, {way}", *taken.cells(CALLS))
    client.submit_many([f"warm up {n}" for n in range(100)])
    with _taken(house) as taken:
        client.submit_many([f"many {n}" for n in range(MANY)])
    table.add(f"submit_many, a job of {MANY:,}, {way}", *taken.cells(MANY))
    with _taken(house) as taken:
        for job_id in ids:
            client.result(job_id)
    table.add(f"look at a result, {way}", *taken.cells(CALLS))
    table.add(f"a streamed piece, {way}", *_stream(house, client).cells(PIECES))


def _in_thread(work: Callable[[], None]) -> tuple[threading.Thread, list[float]]:
    """Do the work in a thread; return it, and a list that gets its CPU seconds at the end."""
    cpu_s: list[float] = []

    def run() -> None:
        work()
        cpu_s.append(time.thread_time())

    thread = threading.Thread(target=run)
    thread.start()
    return thread, cpu_s


def _stream(house: PlayedHouse, client: Client) -> Taken:
    """Read one piece after the other; the next is written when one was read."""
    job = client.submit("Hello", stream=True)
    deliver(house.worker, job.id, "first ")
    pieces = client.stream(job.id)
    next(pieces)
    wanted, written = threading.Semaphore(1), [0.0]

    def write() -> None:
        for n in range(PIECES):
            wanted.acquire()
            deliver(house.worker, job.id, f"{n} ", first=n + 2)
            written[0] = time.monotonic()

    with _taken(house) as taken:
        thread, cpu_s = _in_thread(write)
        for _ in range(PIECES):
            next(pieces)
            taken.each_ms.append(max(0.0, time.monotonic() - written[0]) * 1000)
            wanted.release()
        thread.join()
        taken.played_s = cpu_s[0]
    return taken


async def _waiting(table: Table, way: str, house: PlayedHouse) -> None:
    """Let 1,000 wait: what it costs while nothing happens, and how long an end takes to arrive."""
    client = AsyncClient(house.settings)
    if way == "HTTP":
        client = AsyncClient(base_url=house.gateway.url)
    async with client:
        ids = await client.submit_many([f"waited for {n}" for n in range(WAITING)])
        arrived: dict[str, float] = {}

        async def wait(job_id: str) -> Any:
            await client.result(job_id, wait=True)
            arrived[job_id] = time.monotonic()

        waiting = {job_id: asyncio.create_task(wait(job_id)) for job_id in ids}
        await asyncio.sleep(IDLE_S)
        with _taken(house) as idle:
            await asyncio.sleep(IDLE_S)
        shares = (idle.own_s / idle.wall_s, idle.gateway_s / idle.wall_s)
        table.add(
            f"{WAITING:,} wait, share of a core, {way}", "", *(f"{one:.1%}" for one in shares)
        )
        ended: dict[str, float] = {}

        def end() -> None:
            for job_id in ids[:ENDS]:
                ended[job_id] = time.monotonic()
                house.worker.end(job_id)

        with _taken(house) as taken:
            thread, cpu_s = _in_thread(end)
            await asyncio.gather(*(waiting[job_id] for job_id in ids[:ENDS]))
            await asyncio.to_thread(thread.join)
            taken.played_s = cpu_s[0]
        taken.each_ms = [(arrived[one] - ended[one]) * 1000 for one in ids[:ENDS]]
        table.add(f"a job ends, and one of {WAITING:,} who wait has it, {way}", *taken.cells(ENDS))
        for task in waiting.values():
            task.cancel()
        await asyncio.gather(*waiting.values(), return_exceptions=True)
