"""Wait for jobs while the caller is there and the gateway does not stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from headgate.producer.errors import JobTimeout
from headgate.producer.gateway.calls.body import gone
from headgate.producer.gateway.door import Door
from headgate.shared.job.result import Result

T = TypeVar("T")


async def while_there(door: Door, request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work returns; None if the gateway stops before that.

    Raises ClientDisconnect if the caller goes away. The body must have been read.
    """
    doing = asyncio.ensure_future(work)
    left = asyncio.ensure_future(gone(request))
    stops = asyncio.ensure_future(door.departures.stops.wait())
    try:
        await asyncio.wait((doing, left, stops), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if left.done():
            raise ClientDisconnect
        return None
    finally:
        for task in (doing, left, stops):
            task.cancel()


async def ended_within(door: Door, request: Request, job_id: str, wait_s: float) -> Result | None:
    """Return the result of a job that ends within this time; None if it does not.

    Raises what waiting for a result raises, and ClientDisconnect.
    """
    if wait_s <= 0:
        return None
    waiters = (await door.parts()).waiters
    try:
        return await while_there(door, request, waiters.ended(job_id, wait_s))
    except JobTimeout:
        return None
