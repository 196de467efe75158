"""Celery's settings for a Redis: the same Address that our own clients get, in Celery's words.

What kombu, Celery's result backend and Flower read from a URL differs in each: they get a bare URL,
and TLS, sentinels and the key prefix as options, which all three understand.
"""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from headgate.shared.redis_url import Address
from headgate.shared.servers.redis_client import sentinel_options

SOCKET_S = 10.0
"""How long Celery's own connections wait for a server that says nothing; else a stop could hang."""


def settings_for(address: Address, key_prefix: str) -> dict[str, Any]:
    """Broker and result backend, as Celery's configuration names them."""
    url = address.celery_url()
    options: dict[str, Any] = {"global_keyprefix": key_prefix}
    if address.master_name is not None:
        options["master_name"] = address.master_name
        options["sentinel_kwargs"] = sentinel_options(address, Retry(NoBackoff(), 0))
    found: dict[str, Any] = {
        "broker_url": url,
        "broker_transport_options": {
            **options,
            "socket_timeout": SOCKET_S,
            "socket_connect_timeout": SOCKET_S,
            "socket_keepalive": True,
        },
        "redis_socket_timeout": SOCKET_S,
        "redis_socket_connect_timeout": SOCKET_S,
        "result_backend": url,
        "result_backend_transport_options": options,
    }
    if address.tls is not None:
        found["broker_use_ssl"] = found["redis_backend_use_ssl"] = address.tls.options()
    return found
