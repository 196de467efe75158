"""A worker app whose job does nothing: the pool, the Fetcher and Celery's bookkeeping alone.

`HEADGATE_*` say where the servers are, as for the real app. Each run is appended to the Redis list
`noop:runs`, so that tests can count; with metadata `{"sleep_s": X}` the job takes that long.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from celery import Task

from headgate.shared import settings
from headgate.shared.servers.servers import Servers, open_servers
from headgate.shared.settings import Settings
from headgate.workers.app import Headgate
from headgate.workers.celery.pool import JobRequest, current
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.delivery.fetcher import Fetcher

log = logging.getLogger("noop")
in_force = settings.load()
app = Headgate(in_force, open_servers(in_force), ("fast",))


class Door(Task):  # type: ignore[type-arg]  # Task is generic only in its stubs
    """What tasks.Door is to the real app."""

    Request = JobRequest  # type: ignore[assignment]  # Celery takes a class as well as its path
    lane: RedisBatcher
    fetcher: Fetcher

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.lane = RedisBatcher(servers.async_redis_client())

    async def close(self) -> None:
        await self.lane.close()


@app.task(name="headgate.run", base=Door, bind=True, acks_late=True, ignore_result=True)
async def run(self: Door, envelope: dict[str, Any]) -> str:
    running = current.get()
    log.info("job %s begins", envelope["id"])
    wish = envelope["request"].get("metadata") or {}
    try:
        if "block_s" in wish:
            time.sleep(wish["block_s"])  # noqa: ASYNC251  # it is to block the loop
        if "sleep_s" in wish:
            await asyncio.sleep(wish["sleep_s"])
    except asyncio.CancelledError:
        if running.stopped == "shutdown":
            self.fetcher.leases.returning.add(running.tag)
        raise
    if "silent" not in wish:
        await self.lane.send("RPUSH", "noop:runs", envelope["id"])
    return f"done {running.tag}"
