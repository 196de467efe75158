"""Names the key that has the wrong type. Redis's WRONGTYPE error does not name it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from headgate.shared.broker.keys import Keys


async def name_wrong_key(client: redis.asyncio.Redis, keys: Keys, error: Exception) -> Exception:
    """Return the error; for WRONGTYPE, an error that names our keys of the wrong type."""
    if not isinstance(error, ResponseError) or "WRONGTYPE" not in str(error):
        return error
    kinds = keys.kinds()
    pipe = client.pipeline(transaction=False)
    for name in kinds:
        pipe.type(name)
    execute: Callable[..., Awaitable[list[Any]]] = pipe.execute
    try:
        found = [kind.decode() for kind in await execute()]
    except (RedisError, OSError):
        return error
    wrong = [
        f"{name} is a {kind}, not a {right}"
        for (name, right), kind in zip(kinds.items(), found, strict=True)
        if kind not in (right, "none")
    ]
    return ResponseError(f"{'; '.join(wrong)}: remove or rename it") if wrong else error
