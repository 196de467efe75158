"""Logs an outage of a server in two lines: one when it begins, one when it is over."""

from __future__ import annotations

import logging
import time


class OutageLog:
    """The log of one user of one server. `server` and `meanwhile` are parts of its sentences."""

    def __init__(self, log: logging.Logger, server: str, meanwhile: str) -> None:
        self._log = log
        self._server = server
        self._meanwhile = meanwhile
        self._since: float | None = None

    def failed(self, error: Exception) -> None:
        """Log that the server does not answer, unless this outage is logged already."""
        if self._since is None:
            self._since = time.monotonic()
            lines = str(error).strip().splitlines()
            reason = lines[0] if lines else type(error).__name__
            self._log.warning("%s does not answer (%s); %s", self._server, reason, self._meanwhile)

    def answered(self) -> None:
        """Log the end of the outage, if there was one."""
        if self._since is not None:
            outage_s = time.monotonic() - self._since
            self._since = None
            self._log.warning("%s answers again after %.1f s", self._server, outage_s)
