"""A command outlasts the restart of a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from headgate.producer.installation import Installation
from headgate.shared.errors import Unreachable
from headgate.shared.servers.embedded import EmbeddedFailed

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long a server may be away before a command that waits gives up: longer than a failover."""

_PAUSE_S = 0.5


class Reconnect:
    """Calls again what a lost server made fail, until it works, it has lasted too long or `stop`.

    What is called must be safe to repeat.
    """

    def __init__(
        self,
        at: Installation,
        tell: Callable[[str], None],
        stop: Callable[[], bool],
        *,
        limit_s: float = PATIENCE_S,
    ) -> None:
        self._at, self._tell, self._stop, self._limit_s = at, tell, stop, limit_s

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` gives; raises Unreachable when the server stays away."""
        lost_at: float | None = None
        while True:
            try:
                with self._at.reaching():
                    given = act()
            except Unreachable as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    self._tell(f"{error.server} does not answer ({error.reason}); trying again")
                if now - lost_at > self._limit_s or self._stop():
                    raise
                self._mend()
                time.sleep(_PAUSE_S)
                continue
            if lost_at is not None:
                self._tell("the servers answer again")
            return given

    def _mend(self) -> None:
        if self._at.servers.membership is not None:
            try:
                self._at.servers.membership.ensure(wait_s=5.0)
            except EmbeddedFailed as error:
                self._tell(str(error))
