"""The model statuses as producers see them: which are down, and which providers have no key.

They are read from Redis at most once a second per process, so they cost nothing per job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import redis
from redis.exceptions import RedisError

from headgate.shared import settings
from headgate.shared.admission import breakers
from headgate.shared.broker import worker_keys
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.routing.choose import ModelStatus, without_key
from headgate.shared.settings import Settings

FRESH_S = 1.0


class ModelStatuses:
    """Returns the model statuses, at most a second old. Many threads may share it."""

    def __init__(self, client: redis.Redis, keys: Keys, chosen: Settings, catalog: Catalog) -> None:
        self._redis = client
        self._keys = keys
        self._settings = chosen
        self._catalog = catalog
        self._lock = threading.Lock()
        self._read_at = -FRESH_S
        self._last = ModelStatus()

    def __call__(self) -> ModelStatus:
        """Return the statuses; if Redis does not answer, those that were read last."""
        with self._lock:
            now = time.monotonic()
            if now - self._read_at >= FRESH_S:
                self._read_at = now
                with suppress(RedisError):  # the submit that follows raises it
                    self._last = self._read()
            return self._last

    def _read(self) -> ModelStatus:
        down = breakers.down_models(self._redis, self._keys)
        key_counts = worker_keys.read(self._redis, self._keys) or self._key_counts_here()
        return ModelStatus(frozenset(down), without_key(key_counts))

    def _key_counts_here(self) -> Mapping[str, int]:
        """Count the keys in this process's environment, for as long as no worker has started."""
        if self._settings.simulator_url is not None:
            return {}
        return {
            name: sum(settings.secret(variable) is not None for variable in one.api_key_env)
            for name, one in self._catalog.providers.items()
        }
