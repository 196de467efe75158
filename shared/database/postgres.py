"""A connection to PostgreSQL on which every statement ends within a time."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

R = TypeVar("R")

CANCEL_S = 2.0
"""The longest wait for the server to accept the cancellation of a statement."""


class BoundedConnection(psycopg.Connection[Any]):
    """Closes itself and raises OperationalError if a statement takes longer than `bound_s`.

    TCP notices a server that is gone, but not one that is frozen or whose disk hangs. The frozen
    server would not enforce its own `statement_timeout` either, and that is a setting of the
    session. None means no bound.
    """

    bound_s: float | None = None

    def wait(self, gen: PQGen[R], interval: float = 0.1, timeout: float | None = None) -> R:
        """Return the result of `gen`; psycopg calls this whenever it waits for the server."""
        try:
            return super().wait(gen, interval, timeout or self.bound_s)
        except _WaitTimeout:
            # Otherwise the server would go on with the statement and keep its locks.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_S)
            self.pgconn.finish()
            raise psycopg.OperationalError(
                f"no answer to a statement within {timeout or self.bound_s:g} s"
            ) from None
