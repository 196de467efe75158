"""The own limits of gateway keys, which stand in Redis beside those that an operator sets."""

from __future__ import annotations

from typing import Any

from headgate.producer.callers.keys import GatewayKey
from headgate.producer.installation import Installation
from headgate.shared.admission import limits
from headgate.shared.admission.scopes import key_scope
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


def put_limits(at: Installation, key: GatewayKey) -> None:
    """Put the limits of a key into Redis, unless they stand there; remove those of a useless key.

    The database is where they are kept: a Redis that came back empty gets them with the next call.
    """
    text = limits_of(key) if key.state(now_ms()) == "good" else ""
    if not limits_of(key):
        return
    scope = key_scope(key.id)
    name = at.keys.overrides()
    found: Any = at.redis.hget(name, scope)
    if text and (found is None or found.decode() != text):
        at.redis.hset(name, scope, text)
    elif not text and found is not None:
        at.redis.hdel(name, scope)
