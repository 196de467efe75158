"""Maintenance of callbacks: sends those that no worker will send.

These are callbacks of jobs that ended while they waited, cancelled by a caller or past their
deadline, and of jobs whose worker died at their end while Redis lost their message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import orjson
from sqlalchemy import Engine, delete, select

from headgate.shared.database.engine import reading, writing
from headgate.shared.database.tables import callbacks, jobs
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import ENDED
from headgate.shared.job.result_text import decode_result
from headgate.workers.clients.callbacks import Callbacks, NotSent

log = logging.getLogger("headgate.callbacks")

AT_ONCE = 200
"""Jobs whose callbacks are sent in one round."""


class CallbackUpkeep:
    """Sends callbacks that are due, in the rounds of maintenance."""

    def __init__(
        self, engine: Engine, sender: Callbacks, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._engine = engine
        self._sender = sender
        self._clock_ms = clock_ms

    async def round(self) -> int:
        """Send the callbacks that are due; return of how many jobs."""
        sent = 0
        for row in await asyncio.to_thread(self._due):
            if row.status is not None and row.status not in ENDED:
                await asyncio.to_thread(self._forget, row.job_id)  # an operator has opened it again
            elif await self._send(row):
                sent += 1
        return sent

    async def _send(self, row: Any) -> bool:
        """Send the callbacks of this row, and remove the row; return whether they were sent."""
        why = None
        if not row.envelope or not row.result:
            why = "its record was deleted"
        else:
            try:
                envelope = Envelope.decode(orjson.loads(row.envelope))
                await self._sender.send(envelope, decode_result(row.result), again=True)
            except (NotSent, UnreadableMessage) as error:
                why = error.reason
        if why is not None:
            log.error("job %s: its callbacks cannot be sent: %s", row.job_id, why)
        await self._sender.sent(row.job_id)
        return why is None

    def _due(self) -> list[Any]:
        columns = (callbacks.c.job_id, jobs.c.status, jobs.c.envelope, jobs.c.result)
        query = (
            select(*columns)
            .select_from(callbacks.outerjoin(jobs, jobs.c.id == callbacks.c.job_id))
            .where(callbacks.c.due_at_ms <= self._clock_ms())
            .order_by(callbacks.c.due_at_ms)
            .limit(AT_ONCE)
        )
        with reading(self._engine) as connection:
            return list(connection.execute(query).all())

    def _forget(self, job_id: str) -> None:
        with writing(self._engine) as connection:
            connection.execute(delete(callbacks).where(callbacks.c.job_id == job_id))
