"""Which providers have an API key: those of the running workers, which alone call providers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from redis.exceptions import RedisError

from headgate.shared import redis_url, settings
from headgate.shared.broker import worker_keys
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.servers import embedded, redis_client
from headgate.shared.settings import Settings


@dataclass(frozen=True, slots=True)
class ProviderKeys:
    """The keys of each provider; `of_workers` is None if no worker runs: then ours count."""

    of_workers: dict[str, int] | None

    def has_key(self, provider: ProviderConfig) -> bool:
        """Return whether the provider can be called."""
        if provider.api_key_optional or not provider.api_key_env:
            return True
        if self.of_workers is not None:
            return self.of_workers.get(provider.name, 0) > 0
        return any(settings.secret(name) is not None for name in provider.api_key_env)


def provider_keys(chosen: Settings) -> ProviderKeys:
    """Ask Redis for the workers' keys; start no server, and do without one that does not answer."""
    url = chosen.redis_url or embedded.running(chosen.home_path)
    if url is None:
        return ProviderKeys(None)
    with suppress(RedisError):
        client = redis_client.blocking(redis_url.read(url))
        try:
            return ProviderKeys(worker_keys.read(client, Keys(chosen.key_prefix)))
        finally:
            client.close()
    return ProviderKeys(None)
