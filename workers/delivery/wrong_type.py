"""Which of our keys somebody has made into something else: Redis itself does not say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from headgate.shared.broker.keys import Keys


async def named(client: redis.asyncio.Redis, keys: Keys, error: Exception) -> Exception:
    """The error; where a key of ours has the wrong type, one that names the key."""
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
