"""What producers know of the models: which are down, and which providers the workers have keys of.

One read of Redis, at most once a second per process: nothing per job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisError

from headgate.shared import settings
from headgate.shared.admission import breakers
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import text_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.routing.choose import ModelStatus, without_key
from headgate.shared.settings import Settings

FRESH_S = 1.0


class ModelStatuses:
    """Tells what is known, read again when it is older than a second; for many threads."""

    def __init__(self, client: redis.Redis, keys: Keys, chosen: Settings, catalog: Catalog) -> None:
        self._redis = client
        self._keys = keys
        self._settings = chosen
        self._catalog = catalog
        self._lock = threading.Lock()
        self._read_at = -FRESH_S
        self._last = ModelStatus()

    def __call__(self) -> ModelStatus:
        """What is known now; what was known last where Redis does not answer."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= FRESH_S:
                self._read_at = now
                with suppress(RedisError):  # the submit that comes next says so
                    self._last = self._read()
            return self._last

    def _read(self) -> ModelStatus:
        down = breakers.down_models(self._redis, self._keys)
        told: Any = self._redis.hgetall(self._keys.keyed())
        keyed = {text_of(name): int(text_of(n)) for name, n in told.items()}
        return ModelStatus(frozenset(down), without_key(keyed or self._keyed_here()))

    def _keyed_here(self) -> Mapping[str, int]:
        """No worker has ever started here: the one to come may have the keys of this process."""
        if self._settings.simulator_url is not None:
            return {}
        return {
            name: sum(settings.secret(variable) is not None for variable in one.api_key_env)
            for name, one in self._catalog.providers.items()
        }
