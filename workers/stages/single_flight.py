"""SingleFlight: equal requests in flight are one call; what it comes to is everybody's.

Who follows whom is settled where jobs are handed out (shared/broker/lua/lib/flights.lua). An answer reaches
the followers through the cache; a failure, and who pays, go through here.
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
"""How long a failure is there for those who waited for it."""

MOST = 1000
"""Jobs that a call is split among; further ones pay nothing."""

OWN = frozenset({"internal", "deadline", "cancelled", "budget_exceeded", "tier_limit"})
"""Codes that say something of one job and not of its request: an equal one may fare better."""

OF_REQUEST = frozenset({"invalid_request", "content_filtered"})
"""Codes after which no other model is asked."""


class SingleFlight:
    """The flights of this worker's jobs. `even`: all pay alike; else the leader pays."""

    def __init__(self, lane: RedisBatcher, keys: Keys, *, even: bool) -> None:
        self._lane = lane
        self._keys = keys
        self._even = even

    async def payers(self, request: Request, model: str) -> tuple[str, ...]:
        """The jobs that wait for this one's call and pay their part of it."""
        if not self._even or not may_share(request):
            return ()
        flight = self._keys.flight(fingerprint(request, model))
        return tuple(map(_text, await self._lane.send("ZRANGE", flight, 0, MOST - 1)))

    async def fail(self, request: Request, model: str, error: ErrorReport, chain: Set[str]) -> None:
        """Whoever waits for this call will find how it failed; `chain`: who might have answered."""
        codes = {error.code, *(attempt.code for attempt in error.attempts)}
        if not OWN.isdisjoint(codes) or not may_share(request):
            return
        key = self._keys.failure(fingerprint(request, model))
        fields = {**asdict(error), "chain": sorted(chain)}
        await self._lane.send("SET", key, orjson.dumps(fields), "EX", WINDOW_S)

    async def failure(self, request: Request, model: str, chain: Set[str]) -> ErrorReport | None:
        """How the call failed that the job has waited for; None if that is not known.

        None, too, where the job may ask models of its `chain` that the other might not ask.
        """
        found = await self._lane.send("GET", self._keys.failure(fingerprint(request, model)))
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
    """Whether equal requests may wait for this one's call."""
    return request.share and request.cache.mode != "off"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
