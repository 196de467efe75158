"""A bare loop of AsyncOpenAI calls, run as a process of its own: what the SDK alone costs.

`python -m tests.bench.floor default|aiohttp URL CALLS IN_FLIGHT` prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import psutil
from openai import AsyncOpenAI, DefaultAioHttpClient


async def _loop(kind: str, url: str, calls: int, in_flight: int) -> None:
    http = DefaultAioHttpClient() if kind == "aiohttp" else None
    client = AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0, http_client=http)
    left = iter(range(calls))

    async def ask() -> None:
        for i in left:
            await client.chat.completions.create(
                model="gpt-4o-mini",
                max_tokens=50,
                messages=[{"role": "user", "content": f"floor {i} " + "x" * 300}],
            )

    await client.chat.completions.create(
        model="gpt-4o-mini", max_tokens=5, messages=[{"role": "user", "content": "warm up"}]
    )
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(ask() for _ in range(in_flight)))
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    rss_mb = psutil.Process().memory_info().rss / 1e6
    figures = {"rate": calls / took, "cpu_ms": spent / calls * 1000, "rss_mb": rss_mb}
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(_loop(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
