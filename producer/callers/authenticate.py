"""Finds who calls the gateway, by the key in the headers of the call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from headgate.producer.callers.addresses import WrongKeys
from headgate.producer.callers.caller import Caller
from headgate.producer.callers.keys import SECRET, GatewayKey, sha256_of
from headgate.producer.callers.known_keys import KnownKeys, LoadKey
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.job.ids import now_ms

STRANGERS = 4
"""Keys never seen before that are looked up at once."""

MAX_STRANGERS = 200
"""Keys never seen before that may wait for it; calls with more are refused."""

CallsOfAddress = Callable[[str], Awaitable[float]]
"""Counts one call of an address; returns the seconds that it has to wait, 0 where it may go on."""


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Return the keys of a call, from `Authorization: Bearer` and `x-api-key`.

    The names of the headers are in small letters. Nothing looks at a text that is no key of ours.
    """
    scheme, _, bearer = headers.get("authorization", "").strip().partition(" ")
    found = [bearer.strip()] if scheme.lower() == "bearer" else []
    found.append(headers.get("x-api-key", "").strip())
    return list(dict.fromkeys(filter(None, found)))


class Callers:
    """Finds callers by their keys. One for each process of the gateway.

    `load` reads a key from the database by the SHA-256 of its secret. `count_call` counts calls of
    an address over all processes, where an operator has set a limit. `clock` is monotonic, in s.
    """

    def __init__(
        self,
        load: LoadKey,
        *,
        count_call: CallsOfAddress | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._known = KnownKeys(load, clock)
        self._wrong = WrongKeys(clock)
        self._count_call, self._wall_ms = count_call, wall_ms
        self._looking = asyncio.Semaphore(STRANGERS)
        self._strangers: dict[str, asyncio.Task[GatewayKey | None]] = {}

    async def of(self, headers: Mapping[str, str], address: str) -> Caller:
        """Return the caller of a call with these headers from this address.

        Raises KeyRefused, and Unreachable if the database does not answer and the key is unknown.
        """
        if self._count_call is not None and (wait_s := await self._count_call(address)) > 0:
            message = "too many calls from your address; slow down"
            raise KeyRefused(429, "rate_limit_exceeded", message, wait_s)
        secrets = secrets_of(headers)
        if not secrets:
            message = "no key: send one as Authorization: Bearer KEY, or as x-api-key"
            raise KeyRefused(401, "no_key", message)
        *others, last = secrets
        for secret in others:
            with suppress(KeyRefused):
                return await self._caller(secret, address)
        return await self._caller(last, address)

    async def _caller(self, secret: str, address: str) -> Caller:
        if not SECRET.fullmatch(secret):
            self._refuse_many(address)
            self._wrong.add(address)
            raise _wrong_key()
        digest = sha256_of(secret)
        if digest in self._known:
            key = await self._known.get(digest)
        else:
            key = await self._stranger(digest, address)
        at_ms = self._wall_ms()
        if key is None:
            raise _wrong_key()
        if not key.opens_with(digest, at_ms):
            self._wrong.add(address)
            raise _wrong_key()
        state = key.state(at_ms)
        if state != "good":
            raise KeyRefused(401, f"{state}_key", f"the key {key.id} is {state}")
        return key.caller

    async def _stranger(self, digest: str, address: str) -> GatewayKey | None:
        """Look up a key never seen before, once for all calls that come with it meanwhile."""
        looking = self._strangers.get(digest)
        if looking is None:
            self._refuse_many(address)
            if len(self._strangers) >= MAX_STRANGERS:
                raise KeyRefused(429, "rate_limit_exceeded", "too many unknown keys at once", 1)
            looking = asyncio.ensure_future(self._look_up(digest, address))
            self._strangers[digest] = looking
            looking.add_done_callback(lambda done: self._looked_up(digest, done))
        return await asyncio.shield(looking)

    async def _look_up(self, digest: str, address: str) -> GatewayKey | None:
        async with self._looking:
            self._refuse_many(address)  # wrong keys may have come while this one waited
            found = await self._known.get(digest)
            if found is None:
                self._wrong.add(address)
            return found

    def _looked_up(self, digest: str, done: asyncio.Task[GatewayKey | None]) -> None:
        del self._strangers[digest]
        if not done.cancelled():
            done.exception()  # so that asyncio does not log it if nobody waits any more

    def _refuse_many(self, address: str) -> None:
        wait_s = self._wrong.wait_s(address)
        if wait_s > 0:
            message = "too many wrong keys from your address; wait"
            raise KeyRefused(429, "too_many_wrong_keys", message, wait_s)

    def close(self) -> None:
        """End the threads that read keys."""
        self._known.close()


def _wrong_key() -> KeyRefused:
    return KeyRefused(401, "invalid_api_key", "the key is wrong")
