"""Finds out who calls, by the keys on record."""

from __future__ import annotations

from functools import partial

import redis.asyncio

from headgate.producer.callers import store
from headgate.producer.callers.address_calls import limit_of_addresses
from headgate.producer.callers.authenticate import Callers
from headgate.producer.callers.key_limits import limits_of, put_limits
from headgate.producer.callers.keys import GatewayKey
from headgate.producer.client.operations import Operations
from headgate.shared.broker.keys import Keys
from headgate.shared.settings import Settings


def callers_of(
    settings: Settings, operations: Operations, client: redis.asyncio.Redis, keys: Keys
) -> Callers:
    """Return what finds the callers of this gateway process."""

    def load(digest: str) -> GatewayKey | None:
        found = operations.on_record(partial(store.find, digest=digest))
        if found is not None and limits_of(found):
            operations.report(partial(put_limits, key=found))
        return found

    count_call = limit_of_addresses(client, keys, settings.gateway_rpm_per_address)
    return Callers(load, count_call=count_call)
