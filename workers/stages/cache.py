"""Cache: an equal request of the same tenant is answered from what was paid for before."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import orjson

from shared.envelope import Reply, Request, Usage, known_fields
from shared.keys import Keys
from shared.policy.fingerprint import fingerprint
from shared.scripts import Entry
from workers.lane import Lane

log = logging.getLogger("headgate.cache")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that was kept. `cost_pico_usd`: what it cost then, or None if not known."""

    reply: Reply
    provider: str
    cost_pico_usd: int | None


class Cache:
    """Exact answers in Redis, each for `ttl_s` seconds unless the request says otherwise."""

    def __init__(self, lane: Lane, keys: Keys, *, ttl_s: int) -> None:
        self._lane = lane
        self._keys = keys
        self._ttl_s = ttl_s

    async def recall(self, request: Request, model: str) -> Kept | None:
        """What `model` answered to an equal request, or None. What cannot be read is a miss."""
        if request.cache.mode == "off":
            return None
        found = await self._lane.send("GET", self._keys.cache(fingerprint(request, model)))
        if found is None:
            return None
        try:
            fields = orjson.loads(found)
            reply = known_fields(Reply, fields["reply"])
            reply["usage"] = Usage(**known_fields(Usage, reply["usage"]))
            return Kept(Reply(**reply), fields["provider"], fields["cost_pico_usd"])
        except (ValueError, TypeError, KeyError):
            log.warning("a cache entry cannot be read; it counts as a miss")
            return None

    def remembering(self, request: Request, model: str, kept: Kept) -> Entry | None:
        """The answer as equal requests to `model`, the one that answered, will find it.

        It is written together with the result; None where the request wants no cache.
        """
        if request.cache.mode == "off":
            return None
        entry = orjson.dumps(
            {
                "reply": kept.reply,
                "provider": kept.provider,
                "cost_pico_usd": kept.cost_pico_usd,
            }
        )
        ttl_s = request.cache.ttl_s or self._ttl_s
        return Entry(self._keys.cache(fingerprint(request, model)), entry, ttl_s)
