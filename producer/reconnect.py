"""Try again what a lost server made fail, so that a command outlasts the restart of a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from headgate.producer.installation import Installation
from headgate.shared.errors import Unreachable
from headgate.shared.servers.embedded import EmbeddedFailed

T = TypeVar("T")

GIVE_UP_AFTER_S = 600.0
"""How long a server may be away before a command that waits gives up: longer than a failover."""

_PAUSE_S = 0.5


class Reconnect:
    """Calls a function again while a server is lost.

    The function must be safe to repeat. `notify` is given one line when the server is lost and one
    when it is back. `stop` says whether to give up at the next failure.
    """

    def __init__(
        self,
        at: Installation,
        notify: Callable[[str], None],
        stop: Callable[[], bool],
        *,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> None:
        self._at, self._notify, self._stop = at, notify, stop
        self._give_up_after_s = give_up_after_s

    def __call__(self, act: Callable[[], T]) -> T:
        """Return what `act` returns; raise Unreachable when the server stays away."""
        lost_at: float | None = None
        while True:
            try:
                with self._at.reaching():
                    returned = act()
            except Unreachable as error:
                now = time.monotonic()
                if lost_at is None:
                    lost_at = now
                    self._notify(f"{error.server} does not answer ({error.reason}); trying again")
                if now - lost_at > self._give_up_after_s or self._stop():
                    raise
                self._start_embedded_server()
                time.sleep(_PAUSE_S)
                continue
            if lost_at is not None:
                self._notify("the servers answer again")
            return returned

    def _start_embedded_server(self) -> None:
        if self._at.servers.membership is not None:
            try:
                self._at.servers.membership.ensure(wait_s=5.0)
            except EmbeddedFailed as error:
                self._notify(str(error))
