"""Reloads the catalog at run time, and writes its limits to Redis.

`headgate catalog reload` raises a number in Redis; each worker then reads its own file again. A
file with a fault changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from headgate.shared.admission import limits
from headgate.shared.admission.budgets import KNOWN
from headgate.shared.catalog import catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import CatalogError
from headgate.shared.servers.servers import Servers
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.catalog")

LOOK_S = 0.5
"""How often a worker reads the number: a change is in force everywhere within a second."""

AGAIN_S = 1.0
"""Pause between two tries to write the limits."""


class CatalogReload:
    """Reloads the catalog of one worker. `keys_of` counts the worker's API keys of a provider."""

    def __init__(
        self,
        servers: Servers,
        batcher: RedisBatcher,
        file: Path | None,
        keys_of: Callable[[ProviderConfig], int],
    ) -> None:
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
            await self._write_key_counts(models)
            log.info("catalog %s is in force", models.digest)

    async def _write_key_counts(self, models: Catalog) -> None:
        """Write for producers which providers this worker has keys of, for `model: auto`."""
        counts: dict[Any, Any] = {
            name: self._keys_of(one) for name, one in models.providers.items()
        }
        pairs = [word for pair in counts.items() for word in pair]
        await self._batcher.send("HSET", self._servers.keys.keyed(), *pairs)

    async def begin(self, models: Catalog) -> None:
        """Write the limits of this catalog for the scripts, if Redis answers."""
        client = self._servers.async_redis_client()
        try:
            keys_of = self._keys_of
            await limits.write_async(client, self._servers.keys, models, lambda p: keys_of(p) or 1)
            await self._write_key_counts(models)
            self._begun = True
        except (RedisError, OSError):
            return  # RedisBatcher and Fetcher log the outage
        finally:
            await client.aclose()
