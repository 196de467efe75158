"""Reads what is left of callers' limits, at most once a second for a caller and a model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis.asyncio
from redis.exceptions import RedisError

from headgate.producer.callers.rate_headers import (
    NO_RATES,
    CallerRates,
    RateFields,
    RateLeft,
    anthropic_headers,
    of_own,
    of_pool,
    openai_headers,
)
from headgate.producer.waits.callers import scopes_of
from headgate.producer.waits.levels import levels, limits_in_force
from headgate.shared.admission.overrides import texts_of
from headgate.shared.admission.scopes import EVERY_TENANT, GLOBAL
from headgate.shared.admission.ticket import Ticket
from headgate.shared.admission.tiers import TierOf, by_catalog
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import fields_of, text_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Dialect

log = logging.getLogger("headgate.gateway")

FRESH_S = 1.0
"""How long what was read is used."""

PATIENCE_S = 0.1
"""How long an answer waits for the figures; it goes without them after that."""

MAX_CALLERS = 10_000
MAX_KEYS = 32
"""Keys of a provider whose buckets are read."""


class RatedCaller(NamedTuple):
    """Whose limits count: empty texts for none. `key_id`: of a key of the gateway."""

    tenant: str
    user: str = ""
    tier: str = ""
    key_id: str = ""


@dataclass(slots=True)
class _Read:
    at_s: float
    task: asyncio.Task[CallerRates]


class RatesOfCalls:
    """Says in headers what is left of the limits of a call's caller.

    `catalog` returns the one in force. The tier of callers whose call names none is the catalog's.
    """

    def __init__(self, reader: RateReader, catalog: Callable[[], Catalog]) -> None:
        self._reader, self._catalog = reader, catalog
        self._tiers: tuple[Catalog, TierOf] | None = None

    async def headers(self, fields: Mapping[str, Any], model: str, dialect: Dialect) -> RateFields:
        """Return the headers for a call with these fields of a request; none for no known model."""
        catalog = self._catalog()
        try:
            found = catalog.model(model)
        except InvalidRequest:
            return {}
        tenant, user, tier, key_id = (
            _name(fields.get(field)) for field in ("tenant", "user", "tier", "key_id")
        )
        tenant = tenant or "default"
        tier = tier or self._tier_of(catalog)(tenant, user or None) or ""
        caller = RatedCaller(tenant, user, tier, key_id)
        rates = await self._reader.of(caller, found)
        return anthropic_headers(rates) if dialect == "anthropic" else openai_headers(rates)

    def _tier_of(self, catalog: Catalog) -> TierOf:
        if self._tiers is None or self._tiers[0] is not catalog:
            self._tiers = catalog, by_catalog(catalog)
        return self._tiers[1]


def _name(value: object) -> str:
    return value if isinstance(value, str) else ""  # submit refuses anything else


class RateReader:
    """Reads the limits of callers from Redis, in one round trip each. Use it in one event loop."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._keys, self._clock = client, keys, clock
        self._reads: OrderedDict[tuple[RatedCaller, str, str], _Read] = OrderedDict()
        self._key_counts: dict[str, int] = {}

    async def of(self, caller: RatedCaller, model: Model) -> CallerRates:
        """Return what is left of the limits that bind this caller at this model, if it is known."""
        name = (caller, model.pool_key, model.name)
        read = self._reads.get(name)
        if read is None or self._clock() - read.at_s >= FRESH_S:
            read = _Read(self._clock(), asyncio.ensure_future(self._read(caller, model)))
            self._reads[name] = read
            self._reads.move_to_end(name)
            while len(self._reads) > MAX_CALLERS:
                self._reads.popitem(last=False)
        if read.task.done():
            return read.task.result()
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.shield(read.task)
        except TimeoutError:
            return NO_RATES

    async def _read(self, caller: RatedCaller, model: Model) -> CallerRates:
        try:
            return await self._look(caller, model)
        except RedisError as error:
            log.debug("the limits of a caller were not read: %s", type(error).__name__)
            return NO_RATES

    async def _look(self, caller: RatedCaller, model: Model) -> CallerRates:
        pool, provider = f"pool/{model.pool_key}", f"provider/{model.provider}"
        own = [(GLOBAL, GLOBAL), *scopes_of(_ticket(caller, model))]
        counted = f"keys/{model.provider}"
        scopes = [*(scope for scope, _ in own), EVERY_TENANT, pool, provider, counted]
        key_names = [f"key{n}" for n in range(self._key_counts.get(model.provider, 1))]
        buckets = [
            *(self._keys.bucket(bucket) for _, bucket in own),
            *(self._keys.bucket(scope, key) for scope in (pool, provider) for key in key_names),
        ]
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(self._keys.limits(), scopes)
            pipe.hmget(self._keys.overrides(), scopes)
            for bucket in buckets:
                pipe.hgetall(bucket)
            (s, us), limits, overrides, *found = await pipe.execute()
        now_ms = int(s) * 1000 + int(us) // 1000
        texts = _texts(scopes, limits), _texts(scopes, overrides)
        count = limits_in_force(texts[0].get(counted, "")).get("n")
        self._key_counts[model.provider] = min(MAX_KEYS, int(count.amount)) if count else 1
        fields = [fields_of(one) for one in found]
        lefts = _own_left([scope for scope, _ in own], *texts, fields, now_ms)
        rest = fields[len(own) :]
        for n, scope in enumerate((pool, provider)):
            of_keys = rest[n * len(key_names) : (n + 1) * len(key_names)]
            in_force = limits_in_force(*texts_of(*texts, scope))
            lefts += of_pool(
                [levels(in_force, one, now_ms, of_provider=True) for one in of_keys], now_ms
            )
        return CallerRates(now_ms, lefts)


def _own_left(
    scopes: Sequence[str], limits: Mapping[str, str], overrides: Mapping[str, str],
    fields: Sequence[Mapping[str, str]], now_ms: int,
) -> list[RateLeft]:  # fmt: skip
    found: list[RateLeft] = []
    for scope, bucket in zip(scopes, fields, strict=False):
        in_force = limits_in_force(*texts_of(limits, overrides, scope))
        found += of_own(levels(in_force, bucket, now_ms, of_provider=False), now_ms)
    return found


def _texts(scopes: Sequence[str], replies: Sequence[Any]) -> dict[str, str]:
    pairs = zip(scopes, replies, strict=True)
    return {scope: text_of(reply) for scope, reply in pairs if reply is not None}


def _ticket(caller: RatedCaller, model: Model) -> Ticket:
    return Ticket(
        model.pool_key, model.name, "interactive", caller.tenant, caller.user, caller.tier, "o",
        0, 0, 0, 0, variant_of=model.variant_of, key_id=caller.key_id,
    )  # fmt: skip
