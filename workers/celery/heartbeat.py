"""What a worker says of itself while it lives: to its home, and to a supervisor such as systemd."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from pathlib import Path

from headgate.shared.servers.liveness import BEAT_S, LivenessFile

log = logging.getLogger("headgate.life")


class Heartbeat:
    """`notify_socket` and `watchdog_us` are what systemd sets (sd_notify(3)); None elsewhere."""

    def __init__(self, home: Path, notify_socket: str | None, watchdog_us: str | None) -> None:
        self._home = home
        address = notify_socket or ""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        watchdog_s = int(watchdog_us) / 1e6 if watchdog_us and watchdog_us.isdigit() else 0.0
        self._watched = watchdog_s > 0
        self._every_s = min(BEAT_S, watchdog_s / 4) if self._watched else BEAT_S
        self._pulse: LivenessFile | None = None

    async def run(self, node: str) -> None:
        """The event loop that runs this shows life, until it ends."""
        try:
            self._pulse = await asyncio.to_thread(LivenessFile, self._home, node)
        except OSError as error:
            log.warning("`headgate alive` cannot see this worker: %s", error)
        while True:
            if self._pulse is not None:
                with suppress(OSError):
                    self._pulse.beat()
            if self._watched:
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self._every_s)

    def ready(self) -> None:
        """The supervisor knows that jobs run from now on."""
        self._tell("READY=1\nSTATUS=jobs run")

    def stopping(self) -> None:
        """The supervisor knows that this is no crash."""
        self._tell("STOPPING=1\nSTATUS=running jobs may finish")

    async def close(self) -> None:
        """This worker is known no more."""
        if self._pulse is not None:
            self._pulse.close()
            self._pulse = None

    def _tell(self, words: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)  # a supervisor that does not read must not stop the loop
            line.sendto(words.encode(), self._address)
