"""A server that does not answer is reported once, and once more when it answers again."""

from __future__ import annotations

import logging
import time


class OutageLog:
    """What one user of one server knows of its silence. `server` begins a sentence."""

    def __init__(self, log: logging.Logger, server: str, meanwhile: str) -> None:
        self._log = log
        self._server = server
        self._meanwhile = meanwhile
        self._since: float | None = None

    def missed(self, error: Exception) -> None:
        """The server did not answer; said at the first time only."""
        if self._since is None:
            self._since = time.monotonic()
            words = str(error).strip().splitlines()
            reason = words[0] if words else type(error).__name__
            self._log.warning("%s does not answer (%s); %s", self._server, reason, self._meanwhile)

    def heard(self) -> None:
        """The server answered."""
        if self._since is not None:
            silent_s = time.monotonic() - self._since
            self._since = None
            self._log.warning("%s answers again after %.1f s", self._server, silent_s)
