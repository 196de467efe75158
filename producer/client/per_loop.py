"""What a client has once for each event loop that uses it, such as connections of asyncio."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar


class Closable(Protocol):
    """What is closed in the loop that it belongs to."""

    def close(self) -> Coroutine[Any, Any, None]:
        """Close it."""


C = TypeVar("C", bound=Closable)


class PerLoop(Generic[C]):
    """At most one of them for each event loop. Loops of several threads may ask at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[asyncio.AbstractEventLoop, C] = {}
        self._of_parents: list[dict[asyncio.AbstractEventLoop, C]] = []
        self._pid = os.getpid()

    def get(self) -> C | None:
        """Return that of the running loop; None if it has none yet."""
        self._reset_after_fork()
        return self._made.get(asyncio.get_running_loop())

    def add(self, made: C) -> C:
        """Keep this for the running loop; return the one that is kept from now on."""
        with self._lock:
            for loop in [one for one in self._made if one.is_closed()]:
                del self._made[loop]
            return self._made.setdefault(asyncio.get_running_loop(), made)

    async def close(self) -> None:
        """Close that of the running loop, and begin to close those of the other loops."""
        self._reset_after_fork()
        with self._lock:
            made, self._made = self._made, {}
        own = made.pop(asyncio.get_running_loop(), None)
        for loop, other in made.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(other.close(), loop)
        if own is not None:
            await own.close()

    def _reset_after_fork(self) -> None:
        # A child neither uses nor closes what it shares with its parent, so it is kept.
        if self._pid != os.getpid():
            self._of_parents.append(self._made)
            self._made, self._lock, self._pid = {}, threading.Lock(), os.getpid()
