"""`GET /health`: whether calls can be taken, and for those who may see it the state of all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.admin import health as health_check
from headgate.producer.callers.authenticate import secrets_of
from headgate.producer.callers.caller import OPEN_CALLER, Caller
from headgate.producer.callers.doorkeeper import host_name, is_loopback
from headgate.producer.gateway import health as short
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_with_any
from headgate.producer.gateway.jobs.list_jobs import seen_by
from headgate.producer.gateway.reports.visible import VIEWS
from headgate.producer.installation import Installation
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.script import run
from headgate.shared.broker.unserved import queue_loads
from headgate.shared.errors import HeadgateError

OF_PROXIES = ("x-forwarded-for", "forwarded", "x-real-ip", "via")
"""With one of these headers a call may be of a stranger, though it comes from this machine."""


async def health(door: Door, request: Request) -> Response:
    """Answer whether calls can be taken: 200 or 503.

    A key with the scope `view` or `operate`, and a program of this machine, also get the states of
    models, queues and servers, and the figures of today.
    """
    found = await short.readiness(door.operations, stopping=door.departures.stopping)
    caller = await _viewer(door, request)
    if caller is not None:
        with suppress(HeadgateError, TimeoutError):  # the short answer says what is wrong
            async with asyncio.timeout(short.WITHIN_S):
                found |= await door.reports.read(partial(_parts, door, caller))
    return short.shown(found)


async def _viewer(door: Door, request: Request) -> Caller | None:
    """Return the caller if it may see more than strangers."""
    if door.settings.gateway_open:
        return OPEN_CALLER
    if secrets_of(request.headers):
        with suppress(HeadgateError):
            return await caller_with_any(door, request, *VIEWS)
        return None
    host = request.client.host if request.client is not None else ""
    is_direct = not any(name in request.headers for name in OF_PROXIES)
    named = host_name(request.headers.get("host", ""))  # a page may have made up another name
    return OPEN_CALLER if is_direct and is_loopback(host) and is_loopback(named) else None


def _parts(door: Door, caller: Caller) -> dict[str, Any]:
    """Return the states of all parts, and today's figures as far as the caller may see them."""
    found = door.operations.report(_state)
    asked: Any = {"since": datetime.now(UTC).date(), **seen_by(caller, {})}
    used = door.operations.usage((), asked)
    return {**found, "today": used.total.as_json()}


def _state(at: Installation) -> dict[str, Any]:
    loads = run(at.redis, queue_loads(at.keys, all_queues(at.catalog.classes)))
    return {
        "report": health_check.check(at).as_json(),
        "queues": dict(sorted(loads.waiting.items())),
    }
