"""Reloads the catalog at run time, and writes its limits to Redis.

`headgate catalog reload` raises a number in Redis; each worker then reads its own file again. A
file with a fault changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError, ResponseError

from headgate.shared.admission import limits
from headgate.shared.admission.budgets import KNOWN
from headgate.shared.broker import worker_keys
from headgate.shared.catalog import catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import CatalogError
from headgate.shared.job.ids import now_ms
from headgate.shared.servers.servers import Servers
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.catalog")

LOOK_S = 0.5
"""How often a worker reads the number: a change is in force everywhere within a second."""

AGAIN_S = 1.0
"""Pause between two tries to write the limits."""


class CatalogReload:
    """Reloads the catalog of one worker, and says which providers it has keys of.

    `keys_of` counts the worker's API keys of a provider; `owner` is its name.
    """

    def __init__(
        self,
        servers: Servers,
        batcher: RedisBatcher,
        file: Path | None,
        keys_of: Callable[[ProviderConfig], int],
        *,
        owner: str,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._owner, self._clock_ms = owner, clock_ms
        self._counts: dict[str, int] = {}
        self._written: str | None = None
        self._written_at = -worker_keys.REFRESH_S
        self._servers = servers
        self._batcher = batcher
        self._file = file
        self._keys_of = keys_of
        self._begun = False

    async def run(self, in_force: Catalog, follow: Callable[[Catalog], None]) -> None:
        """Write the limits, then call `follow` with each new catalog, until cancelled."""
        while not self._begun:
            await asyncio.sleep(AGAIN_S)
            await self.begin(in_force)
        version = await self._batcher.send("GET", self._servers.keys.version())
        while True:
            await asyncio.sleep(LOOK_S)
            await self._refresh_key_counts()
            newest = await self._batcher.send("GET", self._servers.keys.version())
            # A Redis that came back empty lets no job spend until it knows the budgets again.
            if not await self._batcher.send("HEXISTS", self._servers.keys.budgets(), KNOWN):
                await self.begin(in_force)
            if newest == version:
                continue
            version = newest
            try:
                models = await asyncio.to_thread(catalog.load, self._file)
            except CatalogError as error:
                log.error("the catalog is not reloaded: %s", error)
                continue
            in_force = models
            follow(models)
            await self._count_keys(models)
            log.info("catalog %s is in force", models.digest)

    async def forget(self) -> None:
        """Forget the keys of this worker, which stops. Raises RedisError."""
        if self._written is not None:
            for command in worker_keys.forget(self._servers.keys, self._written):
                await self._batcher.send(*command)

    async def _count_keys(self, models: Catalog) -> None:
        """Write for producers which providers this worker has keys of, for `model: auto`."""
        self._counts = {name: self._keys_of(one) for name, one in models.providers.items()}
        self._written_at = -worker_keys.REFRESH_S
        await self._refresh_key_counts()

    async def _refresh_key_counts(self) -> None:
        """Write the counts again if it is time, so that they hold while this worker runs."""
        if not self._counts or time.monotonic() - self._written_at < worker_keys.REFRESH_S:
            return
        self._written_at = time.monotonic()
        keys, before = self._servers.keys, self._written
        self._written = worker_keys.member(self._owner, self._counts)
        commands = worker_keys.write(keys, self._written, before, self._clock_ms())
        pairs = [word for pair in self._counts.items() for word in pair]
        commands.append(("HSET", keys.keyed(), *pairs))
        commands.append(("PEXPIRE", keys.keyed(), int(worker_keys.KEPT_S * 1000)))
        with suppress(ResponseError):  # a full Redis; the next write is soon
            await asyncio.gather(*(self._batcher.send(*command) for command in commands))

    async def begin(self, models: Catalog) -> None:
        """Write the limits of this catalog for the scripts, if Redis answers."""
        client = self._servers.async_redis_client()
        try:
            keys_of = self._keys_of
            await limits.write_async(client, self._servers.keys, models, lambda p: keys_of(p) or 1)
            await self._count_keys(models)
            self._begun = True
        except (RedisError, OSError):
            return  # RedisBatcher and Fetcher log the outage
        finally:
            await client.aclose()
