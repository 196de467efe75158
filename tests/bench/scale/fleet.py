"""Workers that only fetch: real Fetchers in one process, on queues in which nothing is.

`python -m tests.bench.scale.fleet URL N SECONDS` prints the CPU seconds that all took together.
"""

from __future__ import annotations

import asyncio
import sys
import time

from redis.asyncio import Redis

from headgate.shared.broker.keys import Keys
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.wakeup import Wakeup

QUEUES = ["headgate.interactive.fast", "headgate.standard.fast", "headgate.bulk.fast"]


def _fetcher(url: str, n: int) -> Fetcher:
    fetcher = Fetcher(
        Redis.from_url(url, socket_timeout=5), Wakeup(Redis.from_url(url), Keys()), Keys(),
        owner=f"idle{n}", slots=100, lease_ms=15_000, max_bytes=1 << 30,
        on_arrival=lambda _arrivals: None, on_stop=lambda _tag, _reason: None,
    )  # fmt: skip
    fetcher.serve(QUEUES)
    return fetcher


async def _idle(url: str, n: int, seconds: float) -> float:
    fleet = [_fetcher(url, i) for i in range(n)]
    await asyncio.sleep(2)
    before = time.process_time()
    sys.stdout.write("idle\n")
    sys.stdout.flush()
    await asyncio.sleep(seconds)
    spent = time.process_time() - before
    await asyncio.gather(*(one.close() for one in fleet))
    return spent


if __name__ == "__main__":
    took_s = asyncio.run(_idle(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.write(f"{took_s}\n")
