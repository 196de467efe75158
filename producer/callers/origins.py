"""The origins that some key lists, which a browser asks for before it sends the key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from headgate.producer.callers.known_keys import FRESH_S
from headgate.shared.errors import Unreachable


class KeyOrigins:
    """Reads the origins of all good keys, at most once in some seconds.

    `load` blocks; it raises Unreachable if the database does not answer. Then the origins that were
    read before hold.
    """

    def __init__(
        self, load: Callable[[], frozenset[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load, self._clock = load, clock
        self._found: frozenset[str] = frozenset()
        self._again_at_s = float("-inf")
        self._reading = asyncio.Lock()

    async def get(self) -> frozenset[str]:
        """Return the origins that good keys list."""
        async with self._reading:
            if self._clock() >= self._again_at_s:
                self._again_at_s = self._clock() + FRESH_S
                try:
                    self._found = await asyncio.to_thread(self._load)
                except Unreachable:
                    return self._found
        return self._found
