"""The limit of calls of each address, over all gateway processes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import redis.asyncio

from headgate.producer.callers.addresses import place_of
from headgate.producer.callers.authenticate import CallsOfAddress
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, run_async

log = logging.getLogger("headgate.gateway")

AT_ONCE = 32
"""Calls that are counted at once: each takes a connection, and the client opens 100 at most."""


def address_call(keys: Keys, address: str, rpm: int) -> Command[float]:
    """Count one call of an address; return the seconds until it may call again, 0 if it may now."""

    def read(reply: Any) -> float:
        return int(reply) / 1000

    return compose("address_call", (), (keys.prefix, place_of(address), rpm), read)


def limit_of_addresses(client: redis.asyncio.Redis, keys: Keys, rpm: int) -> CallsOfAddress | None:
    """Return what counts the calls of an address in Redis; None where there is no limit (0).

    Calls pass while Redis does not answer: they can do nothing without it.
    """
    if not rpm:
        return None

    counting = asyncio.Semaphore(AT_ONCE)

    async def count_call(address: str) -> float:
        try:
            async with counting:
                return await run_async(client, address_call(keys, address, rpm))
        except redis.asyncio.RedisError as error:
            log.debug("the calls of an address were not counted: %s", type(error).__name__)
            return 0.0

    return count_call
