"""`GET /v1/usage`: who used what, as far as the caller may see it."""

from __future__ import annotations

from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_with_any
from headgate.producer.gateway.jobs.list_jobs import seen_by
from headgate.producer.gateway.jobs.params import once_each, require_only, whole_number_in
from headgate.producer.usage.report import UsageQuery

MOST_ROWS = 1_000_000

TEXTS = ("since", "until", "tenant", "user", "model", "template", "batch")


async def usage(door: Door, request: Request) -> Response:
    """Answer with the usage of the caller's tenant or user; of all for a key for any tenant."""
    params = once_each(request)
    require_only(params, "by", "limit", *TEXTS)
    caller = await caller_with_any(door, request, "usage")
    asked: dict[str, Any] = {name: params[name] for name in TEXTS if name in params}
    asked |= seen_by(caller, asked)
    if "limit" in params:
        asked["limit"] = whole_number_in(params, "limit", 1, least=1, most=MOST_ROWS)
    by = params.get("by", "")
    query = cast(UsageQuery, asked)
    found = await door.reports.read(lambda: door.operations.usage(by, query))
    return json_response(found.as_json())
