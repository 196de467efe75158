"""Which providers the running workers have API keys of, for producers and `headgate models`.

Each worker writes its counts again every few seconds. What a worker wrote is forgotten soon after
it has gone, however it went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import redis

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Word, text_of

REFRESH_S = 4.0
"""How often a worker writes its counts."""

KEPT_S = 12.0
"""How long its counts hold: two writes may be late."""


def member(worker: str, counts: Mapping[str, int]) -> str:
    """Return the counts of a worker as they are written: its name, then `provider=count` words."""
    words = (f"{name}={count}" for name, count in sorted(counts.items()))
    return " ".join([worker.replace(" ", "_"), *words])


def write(keys: Keys, written: str, before: str | None, now_ms: int) -> list[tuple[Word, ...]]:
    """Return the commands that write a member until KEPT_S from now.

    `before`: the worker's member so far, which is removed if it is another.
    """
    name, kept_ms = keys.worker_keys(), int(KEPT_S * 1000)
    commands: list[tuple[Word, ...]] = [
        ("ZADD", name, now_ms + kept_ms, written),
        ("ZREMRANGEBYSCORE", name, "-inf", f"({now_ms}"),
        ("PEXPIRE", name, kept_ms),
    ]
    if before is not None and before != written:
        commands.insert(0, ("ZREM", name, before))
    return commands


def read(client: redis.Redis, keys: Keys) -> dict[str, int] | None:
    """Return how many keys of each provider the running workers have; None if none runs.

    Of several workers the highest count holds. Workers of the release before are known by the hash
    that they write.
    """
    with client.pipeline(transaction=False) as calls:
        calls.time()
        calls.zrange(keys.worker_keys(), 0, -1, withscores=True)
        calls.hgetall(keys.keyed())
        (seconds, micros), members, old = calls.execute()
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    found = merged(text_of(one) for one, until_ms in members if until_ms >= now_ms)
    if found is None and old:
        return {text_of(name): int(text_of(count)) for name, count in old.items()}
    return found


def merged(members: Iterable[str]) -> dict[str, int] | None:
    """Return the highest count of each provider; None if there is no member."""
    counts: dict[str, int] | None = None
    for one in members:
        counts = {} if counts is None else counts
        for word in one.split(" ")[1:]:
            name, _, count = word.rpartition("=")
            counts[name] = max(counts.get(name, 0), int(count))
    return counts


def forget(keys: Keys, written: str) -> list[tuple[Word, ...]]:
    """Return the commands that remove the counts of a worker that stops; others write soon."""
    return [("ZREM", keys.worker_keys(), written), ("DEL", keys.keyed())]
