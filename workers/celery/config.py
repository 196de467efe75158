"""Celery's settings for a Redis, from the same Address that our own clients use.

kombu, Celery's result backend and Flower read different parts of a URL. So they get a bare URL, and
TLS, sentinels and the key prefix as options, which all three understand.
"""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from headgate.shared.redis_url import Address
from headgate.shared.servers.redis_client import sentinel_options
from headgate.shared.sub_lists import SubLists

DEFAULT = SubLists()

SOCKET_S = 10.0
"""How long Celery's own connections wait for an answer. Without a limit a stop could hang."""


RESULT_BACKEND = "headgate.workers.celery.result_backend:open_backend"
"""It also reads results that are only in the database. Celery takes a path as well as a scheme."""


def settings_for(
    address: Address, key_prefix: str, sub_lists: SubLists = DEFAULT
) -> dict[str, Any]:
    """Return the settings of broker and result backend under Celery's names."""
    url = address.celery_url()
    options: dict[str, Any] = {"global_keyprefix": key_prefix}
    if address.master_name is not None:
        options["master_name"] = address.master_name
        options["sentinel_kwargs"] = sentinel_options(address, Retry(NoBackoff(), 0))
    found: dict[str, Any] = {
        "broker_url": url,
        "broker_transport_options": {
            **options,
            "sep": sub_lists.sep,
            "priority_steps": list(sub_lists.steps),
            "socket_timeout": SOCKET_S,
            "socket_connect_timeout": SOCKET_S,
            "socket_keepalive": True,
        },
        "redis_socket_timeout": SOCKET_S,
        "redis_socket_connect_timeout": SOCKET_S,
        "result_backend": f"{RESULT_BACKEND}+{url}",
        "result_backend_transport_options": options,
    }
    if address.tls is not None:
        found["broker_use_ssl"] = found["redis_backend_use_ssl"] = address.tls.options()
    return found
