"""A worker app whose job does nothing: the pool, the Fetcher and Celery's bookkeeping alone.

`HEADGATE_*` say where the servers are, as for the real app. Each run is appended to the Redis list
`noop:runs`, so that tests can count; with metadata `{"sleep_s": X}` the job takes that long.
"""

from __future__ import annotations

import asyncio
import logging
import time

from celery import Task

from headgate.shared import settings
from headgate.shared.broker.queues import TASK
from headgate.shared.servers.servers import Servers, open_servers
from headgate.shared.settings import Settings
from headgate.workers.app import Headgate
from headgate.workers.celery.run_end import RunEnd
from headgate.workers.celery.running_job import RunningJob
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.delivery.fetcher import Fetcher

log = logging.getLogger("noop")
in_force = settings.load()
app = Headgate(in_force, open_servers(in_force), ("fast",))


@app.register_task
class Door(Task):  # type: ignore[type-arg]  # Task is generic only in its stubs
    """What tasks.JobTask is to the real app."""

    name = TASK
    lane: RedisBatcher
    fetcher: Fetcher

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.lane = RedisBatcher(servers.async_redis_client())

    async def close(self) -> None:
        await self.lane.close()

    async def run_job(self, running: RunningJob) -> RunEnd:
        [envelope], _, _ = running.arrival.content.body
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
        return RunEnd("succeeded", "task-succeeded")
