"""What is measured at a gateway: added latency, rate, CPU, first tokens, memory, start."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from headgate import AsyncClient
from tests.bench.gateway.caller import Callers, Reply, body, paced, prompt
from tests.bench.gateway.servers import PATH, Door
from tests.bench.rig import Rig

PER_S, STREAMS_PER_S = 100, 25


@dataclass(slots=True)
class Spread:
    """Milliseconds of each call of each round."""

    rounds: list[list[float]] = field(default_factory=list)

    def at(self, share: float) -> float:
        """Return the median over the rounds of this quantile."""
        return statistics.median(quantile(one, share) for one in self.rounds)

    def over(self, other: Spread) -> str:
        """Return p50 and p99 without those of `other` in the same rounds."""
        shown = []
        for share in (0.5, 0.99):
            pairs = zip(self.rounds, other.rounds, strict=True)
            added = statistics.median(quantile(a, share) - quantile(b, share) for a, b in pairs)
            shown.append(f"{added:.1f}")
        return " / ".join(shown) + " ms"


def quantile(found: Sequence[float], share: float) -> float:
    """Return the value below which this share of all lies."""
    ranked = sorted(found)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))]


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far: of a gateway (or the library's process), of all workers, of Valkey."""

    door: float
    workers: float
    redis: float

    @classmethod
    def now(cls, bench: Rig, door: Door | None) -> Cpu:
        """Read it."""
        redis = sum(psutil.Process(bench.valkey.pid).cpu_times()[:2])
        return cls(door.cpu_s() if door else time.process_time(), bench.cpu_s(), redis)

    def since(self, began: Cpu, calls: int) -> Cpu:
        """Return CPU-ms per call since `began`."""
        per = 1000 / calls
        return Cpu(
            (self.door - began.door) * per,
            (self.workers - began.workers) * per,
            (self.redis - began.redis) * per,
        )

    def words(self) -> str:
        """Return all three with slashes between them."""
        return f"{self.door:.2f} / {self.workers:.2f} / {self.redis:.2f}"


def median_cpu(found: Sequence[Cpu]) -> Cpu:
    """Return the median of each."""
    return Cpu(
        statistics.median(one.door for one in found),
        statistics.median(one.workers for one in found),
        statistics.median(one.redis for one in found),
    )


async def _library(client: AsyncClient, calls: int) -> list[float]:
    """Return how many ms each call took by the library's own way: submit, and wait for it."""

    async def one(due: float) -> float:
        asked = prompt()
        job = await client.submit(
            asked, model="gpt-4o-mini", priority="interactive", params={"max_tokens": 50}
        )
        await job.result(timeout_s=60)
        return (time.perf_counter() - due) * 1000

    return await paced(PER_S, calls, one)


@dataclass(slots=True)
class Paced:
    """Added latency at 100 calls a second: each way in turns."""

    straight: Spread = field(default_factory=Spread)
    ways: dict[str, Spread] = field(default_factory=dict)
    cpu: dict[str, list[Cpu]] = field(default_factory=dict)

    async def round(self, bench: Rig, doors: dict[str, Door], seconds: float) -> None:
        """Measure each way once."""
        calls = round(PER_S * seconds)
        async with Callers(bench.provider_url + PATH) as straight:
            await straight.paced(PER_S, PER_S)
            self.straight.rounds.append(_took(await straight.paced(PER_S, calls)))
        async with AsyncClient(bench.settings) as client:
            await _library(client, PER_S)
            began = Cpu.now(bench, None)
            self._note("library", await _library(client, calls), bench, began, None)
        for name, door in doors.items():
            async with Callers(door.url) as through:
                await through.paced(PER_S, PER_S)
                began = Cpu.now(bench, door)
                took = _took(await through.paced(PER_S, calls))
                self._note(name, took, bench, began, door)

    def _note(
        self, name: str, took: list[float], bench: Rig, began: Cpu, door: Door | None
    ) -> None:
        self.ways.setdefault(name, Spread()).rounds.append(took)
        spent = Cpu.now(bench, door).since(began, len(took))
        self.cpu.setdefault(name, []).append(spent)


def _took(replies: list[Reply]) -> list[float]:
    return [(one.ended - one.asked) * 1000 for one in replies]


def _first(replies: list[Reply]) -> list[float]:
    return [(one.first - one.asked) * 1000 for one in replies]


@dataclass(slots=True)
class Rates:
    """Calls per second at full speed, and CPU-ms per call, by way and by callers at once."""

    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    cpu: dict[tuple[str, int], list[Cpu]] = field(default_factory=dict)

    async def round(
        self, bench: Rig, doors: dict[str, Door], at_once: int, calls: dict[str, int]
    ) -> None:
        """Measure each way once. `calls`: how many calls each way makes."""
        for name, door in doors.items():
            async with Callers(door.url) as through:
                await through.at_once(at_once, at_once)
                began = Cpu.now(bench, door)
                rate = await through.at_once(at_once, calls[name])
                spent = Cpu.now(bench, door).since(began, calls[name])
            self.rates.setdefault((name, at_once), []).append(rate)
            self.cpu.setdefault((name, at_once), []).append(spent)


@dataclass(slots=True)
class FirstTokens:
    """How long the first word of a stream took: each way in turns."""

    straight: Spread = field(default_factory=Spread)
    ways: dict[str, Spread] = field(default_factory=dict)

    async def round(self, bench: Rig, doors: dict[str, Door], seconds: float) -> None:
        """Measure each way once."""
        calls = round(STREAMS_PER_S * seconds)
        async with Callers(bench.provider_url + PATH) as straight:
            found = await straight.paced(STREAMS_PER_S, calls, stream=True)
            self.straight.rounds.append(_first(found))
        for name, door in doors.items():
            async with Callers(door.url) as through:
                await through.paced(STREAMS_PER_S, STREAMS_PER_S, stream=True)
                found = await through.paced(STREAMS_PER_S, calls, stream=True)
                self.ways.setdefault(name, Spread()).rounds.append(_first(found))


async def open_streams(door: Door, streams: int) -> tuple[float, int]:
    """Open so many streams; return the memory in MB once each has begun, and how many ended well.

    Each stream must still have pieces to come by then.
    """
    begun, all_begun = 0, asyncio.Event()

    def count_one() -> None:
        nonlocal begun
        begun += 1
        if begun == streams:
            all_begun.set()

    async with Callers(door.url) as callers:
        waiting = []
        for _ in range(streams):
            connection = await callers.connection()
            connection.on_first = count_one
            waiting.append(connection.ask(body(stream=True)))
            await asyncio.sleep(0.002)
        async with asyncio.timeout(120):
            await all_begun.wait()
        still_open = sum(not one.done() for one in waiting)
        assert still_open == streams, f"only {still_open} of {streams} were open at once"
        rss_mb = door.rss_mb()
        replies = await asyncio.gather(*waiting, return_exceptions=True)
    return rss_mb, sum(isinstance(one, Reply) and one.status == 200 for one in replies)
