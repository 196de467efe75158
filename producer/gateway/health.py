"""`GET /health` and `/health/ready`: whether this gateway can take calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response

from headgate.producer.client.operations import Operations
from headgate.producer.gateway.calls.faults import SERVER_AWAY_S
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.installation import Installation
from headgate.producer.waits.find import living_workers
from headgate.shared.database.engine import reading
from headgate.shared.errors import Unreachable

READY, NOT_READY = "ready", "not ready"

WITHIN_S = 10.0
"""How long the servers may take to answer."""


async def readiness(operations: Operations, *, stopping: bool) -> dict[str, object]:
    """Return whether Redis, the database and a worker answer, and what does not.

    It names no address: those who ask may be strangers.
    """
    try:
        async with asyncio.timeout(WITHIN_S):
            workers = await asyncio.to_thread(operations.report, _workers)
    except (Unreachable, TimeoutError):
        return {"status": NOT_READY, "servers": "do not answer"}
    found: dict[str, object] = {"servers": "answer", "workers": workers}
    if workers and stopping:
        found["gateway"] = "is stopping"
    return {"status": READY if workers and not stopping else NOT_READY, **found}


def shown(found: Mapping[str, object]) -> Response:
    """Return the answer for what `readiness` has found: 200 if the gateway is ready, else 503."""
    if found["status"] == READY:
        return json_response(found)
    return json_response(found, {"retry-after": str(round(SERVER_AWAY_S))}, status=503)


def _workers(at: Installation) -> int:
    """Return how many workers run; raise Unreachable if a server does not answer."""
    with reading(at.engine) as connection:
        connection.exec_driver_sql("SELECT 1")
    return living_workers(at.redis, at.keys)
