"""A connection to PostgreSQL on which no statement waits for ever."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

R = TypeVar("R")

CANCEL_S = 2.0
"""Longest wait for the server to take the wish that it stop a statement."""


class BoundedConnection(psycopg.Connection[Any]):
    """Closed, with an OperationalError, once a statement has had no answer for `bound_s`.

    TCP tells of a server that is gone, never of one that stands still: frozen, or its disk hangs.
    `statement_timeout` would be the server's to keep, and state of the session. None: no bound.
    """

    bound_s: float | None = None

    def wait(self, gen: PQGen[R], interval: float = 0.1, timeout: float | None = None) -> R:
        """What the generator returns; all that psycopg waits for on this connection comes here."""
        try:
            return super().wait(gen, interval, timeout or self.bound_s)
        except _WaitTimeout:
            # So that the server does not work on for nobody, with its locks held.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_S)
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"no answer to a statement within {timeout or self.bound_s:g} s"
            ) from None
