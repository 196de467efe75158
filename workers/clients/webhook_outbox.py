"""Says which ended jobs make an event for a webhook, and wakes the part that sends the events.

A job without a webhook costs one look into an empty dict. The tenants' webhooks are read every few
seconds by `workers/maintenance/webhooks`, which sends what is on record.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from headgate.shared.database.webhooks import Subscriptions, event_row
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.result import Result


class WebhookOutbox:
    """The webhooks of tenants as this worker knows them. Use it on one loop.

    `ran_batches`: whether this worker has ended a job of a batch.
    """

    def __init__(self) -> None:
        self.subscribed: Subscriptions = {}
        self.ran_batches = False
        self._recorded = asyncio.Event()

    def row(
        self, envelope: Envelope, result: Result, fence: int, at_ms: int
    ) -> dict[str, Any] | None:
        """Return the row of the event of a job that ends now (Unix ms); None if it calls nobody."""
        if envelope.batch_id is not None:
            self.ran_batches = True
        if not self.subscribed and envelope.request.webhook_url is None:
            return None
        return event_row(envelope, result, fence, at_ms, self.subscribed)

    def recorded(self) -> None:
        """Have the events on record sent at once."""
        self._recorded.set()

    @property
    def is_waiting(self) -> bool:
        """Whether an event was put on record since the last `wait`."""
        return self._recorded.is_set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until an event is on record, at most so long; return whether there is one."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._recorded.wait(), timeout_s)
        found = self._recorded.is_set()
        self._recorded.clear()
        return found
