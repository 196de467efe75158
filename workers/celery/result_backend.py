"""A result backend for any Celery app: Redis as Celery has it, and then the record.

Redis holds results for a day, and fewer if they take too much room. An app with
`result_backend = "headgate+redis://..."` also gets those that are only in the database. It finds
the database by HEADGATE_DATABASE_URL or HEADGATE_HOME, as all of Headgate does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from celery import Celery, states
from celery.backends import redis as celery_redis
from celery.backends.redis import RedisBackend, SentinelBackend
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from headgate.shared import settings
from headgate.shared.broker.results import celery_record
from headgate.shared.database.engine import open_engine, passes, reason, sqlite_url
from headgate.shared.database.recorded import recorded_results
from headgate.workers.clients.outage_log import OutageLog

log = logging.getLogger("headgate.record")


class Record:
    """Reads ended jobs from the database; one connection pool in each process."""

    def __init__(self) -> None:
        in_force = settings.load()
        self._file = None
        url = in_force.database_url
        if url is None:
            self._file = in_force.home_path / "headgate.db"
            url = sqlite_url(self._file)
        self._url = url
        self._timeout_s = in_force.database_timeout_s
        self._engine: Engine | None = None
        self._pid = 0
        self._outage_log = OutageLog(
            log, "the record", "results that are no longer in Redis count as pending"
        )

    def read(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Return, by id, what Celery would have stored of these jobs; nothing if it is away."""
        if not _exists(self._file):
            return {}
        try:
            found = recorded_results(self._open(), [*ids])
        except (DBAPIError, PoolTimeout) as error:
            if isinstance(error, DBAPIError) and not passes(error):
                raise
            self._outage_log.failed(RuntimeError(reason(error)))
            return {}
        self._outage_log.answered()
        return {job_id: celery_record(result) for job_id, result in found.items()}

    def close(self) -> None:
        """Close the connections; the next read opens new ones."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()

    def _open(self) -> Engine:
        if self._engine is None or self._pid != os.getpid():
            # A forked child must not use the connections of its parent, nor close them.
            self._engine, self._pid = open_engine(self._url, self._timeout_s), os.getpid()
        return self._engine


def _exists(file: Path | None) -> bool:
    return file is None or file.exists()


class RecordConsumer(celery_redis.ResultConsumer):  # type: ignore[name-defined, misc]  # no stubs
    """Also reads the record when its connection to Redis was lost."""

    def _reconnect_pubsub(self) -> None:
        super()._reconnect_pubsub()
        self.backend.tell_recorded(self.subscribed_to)


class RecordReading:
    """What the backends for one Redis and for sentinels share.

    Celery chooses a backend by its class, so that this cannot be a part of it.
    """

    ResultConsumer = RecordConsumer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.record = Record()

    def get_task_meta(self: Any, task_id: str, cache: bool = True) -> Any:
        """Return the state of the task by Redis, or by the record where Redis knows of no end."""
        meta = super().get_task_meta(task_id, cache)  # type: ignore[misc]  # of Celery's class
        if meta["status"] not in states.READY_STATES:
            stored = self.record.read([task_id]).get(task_id)
            if stored is not None:
                meta = self.decode_result(stored)
                if cache and meta["status"] == states.SUCCESS:
                    self._cache[task_id] = meta
        return meta

    def mget(self: Any, keys: Sequence[str | bytes]) -> list[Any]:
        """Return what is stored under these keys of results, as a group asks for them."""
        found = [*super().mget(keys)]  # type: ignore[misc]  # of Celery's class
        missing = {
            place: self._strip_prefix(key)
            for place, (key, value) in enumerate(zip(keys, found, strict=True))
            if value is None
        }
        recorded = self.record.read(missing.values()) if missing else {}
        for place, task_id in missing.items():
            found[place] = recorded.get(task_id)
        return found

    def tell_recorded(self: Any, keys: Iterable[str | bytes]) -> None:
        """Give those who wait for these keys of results what the record knows of them."""
        ids = [self._strip_prefix(key) for key in keys]
        for stored in self.record.read(ids).values() if ids else ():
            self.result_consumer.on_state_change(self.decode_result(stored), None)


class RecordBackend(RecordReading, RedisBackend):  # type: ignore[misc]  # its consumer has no stubs
    """For `headgate+redis://`, `headgate+rediss://` and `headgate+socket://`."""


class SentinelRecordBackend(RecordReading, SentinelBackend):  # type: ignore[misc]  # the same
    """For `headgate+sentinel://`."""


def open_backend(app: Celery, url: str | None = None, **options: Any) -> RedisBackend:
    """Return the backend for the Redis at this URL. Celery calls it."""
    address = (url or "").removeprefix("redis+")
    kind = SentinelRecordBackend if address.startswith("sentinel:") else RecordBackend
    return kind(app=app, url=address or None, **options)
