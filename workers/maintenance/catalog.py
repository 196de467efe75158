"""The catalog at run time: its limits are in Redis, and a reload reaches every worker.

`headgate catalog reload` raises a number; each worker then reads its own file again. A file that is
wrong changes nothing.
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
"""How often the number is looked at: a change is in force everywhere within a second."""

AGAIN_S = 1.0


class CatalogReload:
    """Keeps one worker's catalog that of its file."""

    def __init__(
        self,
        servers: Servers,
        lane: RedisBatcher,
        file: Path | None,
        keys_of: Callable[[ProviderConfig], int],
    ) -> None:
        self._servers = servers
        self._lane = lane
        self._file = file
        self._keys_of = keys_of
        self._begun = False

    async def run(self, in_force: Catalog, follow: Callable[[Catalog], None]) -> None:
        """Limits are in Redis; from now on `follow` gets each catalog that comes into force."""
        while not self._begun:
            await asyncio.sleep(AGAIN_S)
            await self.begin(in_force)
        version = await self._lane.send("GET", self._servers.keys.version())
        while True:
            await asyncio.sleep(LOOK_S)
            told = await self._lane.send("GET", self._servers.keys.version())
            # A Redis that came back empty lets nobody spend until it knows the budgets again.
            if not await self._lane.send("HEXISTS", self._servers.keys.budgets(), KNOWN):
                await self.begin(in_force)
            if told == version:
                continue
            version = told
            try:
                models = await asyncio.to_thread(catalog.load, self._file)
            except CatalogError as error:
                log.error("the catalog is not reloaded: %s", error)
                continue
            in_force = models
            follow(models)
            await self._tell_keys(models)
            log.info("catalog %s is in force", models.digest)

    async def _tell_keys(self, models: Catalog) -> None:
        """Producers know which providers this worker has keys of, for `model: auto`."""
        counts: dict[Any, Any] = {
            name: self._keys_of(one) for name, one in models.providers.items()
        }
        pairs = [word for pair in counts.items() for word in pair]
        await self._lane.send("HSET", self._servers.keys.keyed(), *pairs)

    async def begin(self, models: Catalog) -> None:
        """The scripts limit by this catalog, if Redis answers."""
        client = self._servers.async_redis_client()
        try:
            keys_of = self._keys_of
            await limits.write_async(client, self._servers.keys, models, lambda p: keys_of(p) or 1)
            await self._tell_keys(models)
            self._begun = True
        except (RedisError, OSError):
            return  # others say that it is away
        finally:
            await client.aclose()
