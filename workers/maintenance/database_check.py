"""Checks in each worker that its database is still the one that Redis belongs to.

If it is not, the worker takes no more jobs: they would be paid twice. Jobs that run end in the
database that they began in. A SQLite file that was deleted or replaced is missed by the same check.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from headgate.shared.database import sqlite_file
from headgate.shared.database.sqlite_file import Saver
from headgate.shared.servers import same_database
from headgate.shared.servers.same_database import DatabaseName
from headgate.shared.servers.servers import Servers
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.database")

CONFIRM_S = 2.0
"""A file that is missing is looked for again after this time: a restore moves it there."""

STRAY_MS = 3_600_000
"""How long `headgate health` shows why a worker has ended."""

TELL_S = 1.0
"""How long a worker that ends waits for Redis to take that note."""


class DatabaseCheck:
    """Compares the ids once a period. `end` lets the worker finish its jobs and end."""

    def __init__(
        self, servers: Servers, engine: Engine, batcher: RedisBatcher, *, owner: str,
        period_s: float, end: Callable[[], object] | None,
    ) -> None:  # fmt: skip
        self._servers = servers
        self._engine = engine
        self._batcher = batcher
        self._worker = owner.rpartition(":")[0] or owner
        self._period_s = period_s
        self._end = end
        self._mine: DatabaseName | None = None
        self._saver: Saver | None = None
        self._is_lost = False

    async def begin(self) -> None:
        """Compare once; raise SettingError if Redis belongs to another database.

        Waits while Redis is away.
        """
        self._mine = await self._name()
        same_database.require(self._servers, self._mine, await self._claim(self._mine))

    async def run(self) -> None:
        """Compare until the database is lost. A server that does not answer is no mismatch."""
        while True:
            await asyncio.sleep(self._period_s)
            try:
                why = await self._why_lost()
            except (RedisError, DBAPIError):
                continue  # logged by those who need the server
            except Exception:
                log.exception("the check of the database failed; trying again")
                continue
            if why is not None:
                break
        log.critical("%s; this worker takes no more jobs and ends", why)
        with suppress(TimeoutError, RedisError):  # before the end, which closes the connection
            await asyncio.wait_for(self._tell(why), TELL_S)
        if self._end is not None:
            self._end()

    async def _tell(self, why: str) -> None:
        """Let `headgate health` show why this worker ended."""
        note, key = f"{int(time.time() * 1000)} {why}", self._servers.keys.strays()
        await self._batcher.send("HSET", key, self._worker, note)
        await self._batcher.send("PEXPIRE", key, STRAY_MS)

    async def close(self) -> None:
        """Save a SQLite file that is lost, with all that was recorded in it at last.

        Call it when nobody writes any more.
        """
        if self._saver is None:
            return
        try:
            if self._is_lost:
                target = await asyncio.to_thread(self._saver.save)
                log.critical(
                    "the lost file is saved as %s with all that this worker has recorded; to go on "
                    "with it: end all workers, move it to its old name, and remove the -wal and "
                    "-shm files beside that name", target,
                )  # fmt: skip
        except Exception as error:
            log.critical("the lost file cannot be saved: %s", error)
        finally:
            self._saver.close()

    async def _why_lost(self) -> str | None:
        try:
            mine = await self._name()
        except DBAPIError as error:
            if sqlite_file.lost(error) is None:
                raise
            return await self._confirm()
        first = self._mine = self._mine or mine
        if mine.id != first.id:
            return f"the database at {first.address} was replaced by another"
        found = await self._claim(mine)
        if found.id == mine.id:
            return None
        return same_database.mismatch(self._servers, mine, found)

    async def _confirm(self) -> str | None:
        """Return what happened to the SQLite file, unless it is back in a moment."""
        await asyncio.sleep(CONFIRM_S)
        try:
            await self._name()
        except DBAPIError as error:
            if (why := sqlite_file.lost(error)) is None:
                raise
            if self._saver is not None:
                self._saver.leave()
            self._is_lost = True
            return why
        return None

    async def _name(self) -> DatabaseName:
        return await asyncio.to_thread(self._look)

    def _look(self) -> DatabaseName:
        """Return the name of the database; hold a connection with its file, if it has one."""
        found = same_database.name_of(self._servers, self._engine)
        file = sqlite_file.of(self._engine)
        if file is not None and (self._saver is None or not self._saver.is_current):
            if self._saver is not None:
                self._saver.close()
            self._saver = Saver(self._engine, file)
        return found

    async def _claim(self, mine: DatabaseName) -> DatabaseName:
        """Return the database that Redis belongs to; if Redis was emptied, it is this one."""
        key = self._servers.keys.database()
        if (value := await self._batcher.send("GET", key)) is None:
            await self._batcher.send("SET", key, mine.encode(), "NX")
            value = await self._batcher.send("GET", key)
        return same_database.decode(value) or mine
