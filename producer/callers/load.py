"""Reads keys for the gateway, and puts their limits into Redis, where jobs are let in by them."""

from __future__ import annotations

from typing import Any

import redis

from headgate.producer.callers import store
from headgate.producer.callers.keys import GatewayKey
from headgate.producer.callers.known_keys import LoadKey
from headgate.producer.installation import Installation
from headgate.shared.admission import limits
from headgate.shared.admission.scopes import key_scope
from headgate.shared.broker.keys import Keys
from headgate.shared.job.ids import now_ms


def limits_of(key: GatewayKey) -> str:
    """Return the limits and the budget of a key as the scripts read them; empty for none.

    Nothing is spent above the budget of a key: its hard stop is the budget itself.
    """
    given: dict[str, Any] = {"rpm": key.caller.rpm, "tpm": key.caller.tpm}
    amounts = {name: float(amount) for name, amount in given.items() if amount is not None}
    words = [limits.written(amounts)] if amounts else []
    if key.budget_usd is not None:
        words.append(f"usd_per_{key.budget_period}={key.budget_usd} hard=1")
    return " ".join(words)


def put_limits(client: redis.Redis, keys: Keys, key: GatewayKey) -> None:
    """Put the limits of a key into Redis, unless they stand there; remove those of a useless key.

    The database is where they are kept: a Redis that came back empty gets them with the next call.
    """
    text = limits_of(key) if key.state(now_ms()) == "good" else ""
    if not limits_of(key):
        return
    scope = key_scope(key.id)
    found: Any = client.hget(keys.overrides(), scope)
    if text and (found is None or found.decode() != text):
        client.hset(keys.overrides(), scope, text)
    elif not text and found is not None:
        client.hdel(keys.overrides(), scope)


def loader(at: Installation) -> LoadKey:
    """Return what reads a key from the database of this installation, and puts its limits in force.

    It raises Unreachable if the database does not answer, or Redis, where a key has limits.
    """

    def load(digest: str) -> GatewayKey | None:
        with at.reaching():
            found = store.find(at.engine, digest)
            if found is not None:
                put_limits(at.redis, at.keys, found)
            return found

    return load
