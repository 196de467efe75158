"""Shows that a worker lives: in its home folder, and to a supervisor such as systemd."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

from headgate.shared.servers.liveness import BEAT_S, LivenessFile

log = logging.getLogger("headgate.life")


class Heartbeat:
    """Beats on the worker's loop, so that a loop that hangs is noticed.

    `notify_socket` and `watchdog_us` are what systemd sets (sd_notify(3)); None elsewhere.
    """

    def __init__(self, home: Path, notify_socket: str | None, watchdog_us: str | None) -> None:
        self._home = home
        address = notify_socket or ""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watchdog_s = int(watchdog_us) / 1e6 if watchdog_us and watchdog_us.isdigit() else 0.0
        self._watched = watchdog_s > 0
        self._every_s = min(BEAT_S, watchdog_s / 4) if self._watched else BEAT_S
        self._pulse: LivenessFile | None = None

    async def run(self, node: str) -> None:
        """Beat until cancelled. `node` is the worker's name."""
        try:
            self._pulse = await asyncio.to_thread(LivenessFile, self._home, node)
        except OSError as error:
            log.warning("`headgate alive` cannot see this worker: %s", error)
        while True:
            if self._pulse is not None:
                with suppress(OSError):
                    self._pulse.beat()
            if self._watched:
                self._notify("WATCHDOG=1")
            await asyncio.sleep(self._every_s)

    def ready(self) -> None:
        """Tell the supervisor that jobs run from now on."""
        self._notify("READY=1\nSTATUS=jobs run")

    def stopping(self) -> None:
        """Tell the supervisor that the worker stops by itself."""
        self._notify("STOPPING=1\nSTATUS=running jobs may finish")

    async def close(self) -> None:
        """Remove this worker from the home folder."""
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.setblocking(False)  # a supervisor that does not read must not stop the loop
            supervisor.sendto(state.encode(), self._address)
