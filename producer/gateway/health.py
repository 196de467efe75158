"""`GET /health` and `/health/ready`: whether this gateway can take calls."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from headgate.producer.client.operations import Operations
from headgate.producer.gateway.calls.faults import SERVER_AWAY_S
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.installation import Installation
from headgate.producer.waits.find import living_workers
from headgate.shared.database.engine import reading
from headgate.shared.errors import Unreachable

WITHIN_S = 10.0
"""How long the servers may take to answer."""


async def health(operations: Operations, *, stopping: bool) -> Response:
    """Return 200 if Redis, the database and a worker answer, else 503 with what does not.

    It names no address: those who ask may be strangers.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            workers = await asyncio.to_thread(operations.report, _workers)
    except (Unreachable, TimeoutError):
        return _unready({"servers": "do not answer"})
    if workers == 0:
        return _unready({"servers": "answer", "workers": 0})
    if stopping:
        return _unready({"servers": "answer", "workers": workers, "gateway": "is stopping"})
    return json_response({"status": "ready", "servers": "answer", "workers": workers})


def _unready(found: dict[str, object]) -> Response:
    after = {"retry-after": str(round(SERVER_AWAY_S))}
    return json_response({"status": "not ready", **found}, after, status=503)


def _workers(at: Installation) -> int:
    """Return how many workers run; raise Unreachable if a server does not answer."""
    with reading(at.engine) as connection:
        connection.exec_driver_sql("SELECT 1")
    return living_workers(at.redis, at.keys)
