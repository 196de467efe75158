"""What looking into the cache takes, by itself: from the request in hand to the answer in hand."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog.catalog import load
from headgate.shared.job.ids import now_ms
from headgate.shared.job.request import Request, request_from
from headgate.shared.job.result import Reply, Usage
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.stages.cache import Cache, Question
from headgate.workers.stages.cache_entry import CacheEntry
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder

LOOKS, TOGETHER, MODEL = 3_000, 100, "gpt-4o-mini"


def recall() -> Table:
    """Rows of found and not found, one after the other and many at once."""
    columns = ("", "p50", "p99", "CPU of the worker")
    table = Table("a look into the cache, an answer of 1 kB", columns)
    with short_folder() as folder, ValkeyServer(folder) as server:
        asyncio.run(_looks(server, table))
    return table


async def _looks(server: ValkeyServer, table: Table) -> None:
    lane = RedisBatcher(Redis.from_url(server.url))
    cache = Cache(
        lane, Keys(), policy=CachePolicy(CacheRuleIndex.of(load().cache.rules)), clock_ms=now_ms
    )  # fmt: skip
    known, unknown = (request_from({"prompt": f"{word} " + "x " * 150}) for word in ("a", "b"))
    reply = Reply("An answer. " * 93, "stop", Usage(80, 0, 0, 250, 0))
    with server.client(decode_responses=False) as client:
        answers = cache.writes(
            Question(known), CacheEntry(reply, "openai", 162_000_000, MODEL), MODEL
        )
        script.run(
            client,
            jobs.publish(
                Keys(), job_id="job", record=b"{}", ttl_s=60, answers=answers, cache_bytes=1 << 28
            ),
        )
    for name, request, together in (
        ("found, one after the other", known, 1),
        (f"found, {TOGETHER} at once", known, TOGETHER),
        ("not found, one after the other", unknown, 1),
        (f"not found, {TOGETHER} at once", unknown, TOGETHER),
    ):
        await _timed(cache, request, together)  # connections are open
        cpu_s = time.process_time()
        took = sorted(await _timed(cache, request, together))
        cpu_us = (time.process_time() - cpu_s) / len(took) * 1e6
        p50, p99 = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
        table.add(name, f"{p50:.2f} ms", f"{p99:.2f} ms", f"{cpu_us:.0f} us")
    await lane.close()


async def _timed(cache: Cache, request: Request, together: int) -> list[float]:
    """Seconds of each look."""

    async def one() -> float:
        began = time.perf_counter()
        await cache.recall(Question(request), MODEL)
        return time.perf_counter() - began

    took: list[float] = []
    for _ in range(LOOKS // together):
        took += await asyncio.gather(*(one() for _ in range(together)))
    return took
