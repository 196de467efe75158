"""`GET /v1/limits`, `/v1/budgets` and `/v1/cache`: the caller's own, or those of all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.admin import budgets as budget_report
from headgate.producer.admin import cache as cache_report
from headgate.producer.admin import limits_report
from headgate.producer.callers.allowed import identity
from headgate.producer.callers.refused import KeyRefused
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_with_any
from headgate.producer.gateway.jobs.params import once_each, require_only
from headgate.producer.gateway.reports.visible import VIEWS, own_budgets, own_limits, sees_all
from headgate.producer.installation import Installation
from headgate.shared.errors import WrongUse

T = TypeVar("T")


async def limits(door: Door, request: Request) -> Response:
    """Answer with the limits in force, and how full they are."""
    params = once_each(request)
    require_only(params, "pool", "tenant")
    caller = await caller_with_any(door, request, "usage", *VIEWS)
    pool, tenant = params.get("pool"), params.get("tenant")
    is_all = sees_all(caller)
    if not is_all:
        tenant, _ = identity(caller, tenant)
    read = partial(limits_report.report, pool=pool, tenant=tenant)
    try:
        found = await _reported(door, read)
    except WrongUse as error:
        raise WrongUse(error.field.removeprefix("--"), error.value, error.remedy) from None
    return json_response((found if is_all else own_limits(caller, found)).as_json())


async def budgets(door: Door, request: Request) -> Response:
    """Answer with how much of each budget is spent, today and this month."""
    require_only(once_each(request))
    caller = await caller_with_any(door, request, "usage", *VIEWS)
    rows = await _reported(door, budget_report.report)
    if not sees_all(caller):
        rows = own_budgets(caller, rows)
    return json_response({"budgets": [row.as_json() for row in rows]})


async def cache(door: Door, request: Request) -> Response:
    """Answer with how full the cache is, and what it has saved: for those who see all tenants."""
    require_only(once_each(request))
    caller = await caller_with_any(door, request, *VIEWS)
    if not sees_all(caller):
        words = "the cache is of all tenants; this needs a key for any tenant"
        raise KeyRefused(403, "tenant", words)
    found = await _reported(door, cache_report.stats)
    return json_response(found.as_json())


async def _reported(door: Door, read: Callable[[Installation], T]) -> T:
    return await door.reports.read(partial(door.operations.report, read))
