"""SingleFlight: equal requests in flight share one call, its answer or failure, and its price.

`shared/broker/lua/lib/flights.lua` decides who leads and who follows. The followers get the answer
from the cache. Failures and shares of the price go through here.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict

import orjson

from headgate.shared.broker.keys import Keys
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.job.request import Request
from headgate.shared.job.result import ErrorReport, FailedAttempt, known_fields
from headgate.workers.clients.redis_batcher import RedisBatcher

WINDOW_S = 5
"""How long a failure is kept for those who waited for it."""

MOST = 1000
"""Jobs that the price of a call is split among; further ones pay nothing."""

OWN = frozenset({"internal", "deadline", "expired", "cancelled", "budget_exceeded", "tier_limit"})
"""Codes that are about one job and not its request: an equal request may succeed."""

OF_REQUEST = frozenset({"invalid_request", "content_filtered"})
"""Codes after which no other model is asked."""


class SingleFlight:
    """The flights of this worker's jobs. `even`: all pay the same share; else the leader pays.

    `sample`: see `Envelope.sample`.
    """

    def __init__(self, batcher: RedisBatcher, keys: Keys, *, even: bool) -> None:
        self._batcher = batcher
        self._keys = keys
        self._even = even

    async def payers(self, request: Request, model: str, sample: int = 1) -> tuple[str, ...]:
        """Return the ids of the followers, which pay their share of this job's call."""
        if not self._even or not may_share(request):
            return ()
        flight = self._keys.flight(fingerprint(request, model, sample))
        return tuple(map(_text, await self._batcher.send("ZRANGE", flight, 0, MOST - 1)))

    async def fail(
        self, request: Request, model: str, error: ErrorReport, chain: Set[str], sample: int = 1
    ) -> None:
        """Keep the failure for the followers. `chain`: the models that might have answered."""
        codes = {error.code, *(attempt.code for attempt in error.attempts)}
        if not OWN.isdisjoint(codes) or not may_share(request):
            return
        key = self._keys.failure(fingerprint(request, model, sample))
        fields = {**asdict(error), "chain": sorted(chain)}
        await self._batcher.send("SET", key, orjson.dumps(fields), "EX", WINDOW_S)

    async def failure(
        self, request: Request, model: str, chain: Set[str], sample: int = 1
    ) -> ErrorReport | None:
        """Return how the call failed that the job waited for; None if that is not known.

        Also None where the job's `chain` has models that the leader could not ask.
        """
        key = self._keys.failure(fingerprint(request, model, sample))
        found = await self._batcher.send("GET", key)
        if found is None:
            return None
        try:
            raw = orjson.loads(found)
            fields = known_fields(ErrorReport, raw)
            tried = [known_fields(FailedAttempt, one) for one in fields["attempts"]]
            error = ErrorReport(**{**fields, "attempts": [FailedAttempt(**one) for one in tried]})
            asked = {attempt.model for attempt in error.attempts}
            same = asked <= chain if error.code in OF_REQUEST else chain <= set(raw["chain"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return error if same else None


def may_share(request: Request) -> bool:
    """Return whether equal requests may wait for this request's call."""
    return request.share and request.cache.mode != "off"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
