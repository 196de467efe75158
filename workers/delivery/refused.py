"""Who waits for a message that is refused: a stock producer that asks Celery for the result.

Our own messages are left out. Their jobs are on record, and are not refused with the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from headgate.shared.broker.dead_letters import Waiter
from headgate.shared.broker.queues import ORIGIN
from headgate.shared.job.encoding import loads

LONGEST_ID = 1024
"""A message with a longer id is refused without an answer to its caller."""


def waiter_of_raw(raw: bytes, ttl_s: int) -> Waiter | None:
    """Return who waits for this unreadable message; None if its id cannot be read."""
    try:
        fields = loads(raw)
    except orjson.JSONDecodeError:
        return None
    headers = fields.get("headers") if isinstance(fields, dict) else None
    return waiter_of(headers, ttl_s) if isinstance(headers, dict) else None


def waiter_of(headers: Mapping[str, Any], ttl_s: int) -> Waiter | None:
    """Return who waits for the message with these headers."""
    job_id, group = headers.get("id"), headers.get("group")
    if headers.get("origin") == ORIGIN or not isinstance(job_id, str):
        return None
    if not 0 < len(job_id) <= LONGEST_ID:
        return None
    return Waiter(job_id, ttl_s, group if isinstance(group, str) else "")
