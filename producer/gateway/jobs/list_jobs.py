"""`GET /v1/jobs`: the caller's jobs, the newest first, a page at a time."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.callers.allowed import identity
from headgate.producer.callers.caller import Caller
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_for
from headgate.producer.gateway.jobs.params import once_each, require_only, whole_number_in
from headgate.producer.results.listing import JobFilters
from headgate.shared.errors import InvalidRequest

MOST_LISTED = 1000
LISTED = 50
"""Jobs of a page, unless the call says how many."""

FILTERS = ("status", "tenant", "user", "model", "batch", "priority", "code", "since", "before")

METADATA = "metadata."
"""A parameter such as `metadata.run=7` finds the jobs whose metadata has this."""

_MARK = "job:"


async def list_jobs(door: Door, request: Request) -> Response:
    """Answer with a page of jobs, and with a cursor if there may be more."""
    params = once_each(request)
    require_only(params, *FILTERS, "limit", "cursor", prefix=METADATA)
    caller = await caller_for(door, request, "jobs")
    asked: dict[str, Any] = {name: params[name] for name in FILTERS if name in params}
    asked |= seen_by(caller, asked)
    asked["limit"] = whole_number_in(params, "limit", LISTED, least=1, most=MOST_LISTED)
    metadata = {
        name.removeprefix(METADATA): value
        for name, value in params.items()
        if name.startswith(METADATA)
    }
    if metadata:
        asked["metadata"] = metadata
    if "cursor" in params:
        asked["before"] = await _place(door, caller, params)
    elif "before" in params:
        await door.ownership.require(caller, params["before"])
    found = await asyncio.to_thread(door.operations.jobs, cast(JobFilters, asked))
    is_full = len(found) == asked["limit"]
    next_cursor = cursor_of(found[-1].id) if is_full else None
    return json_response({"jobs": [one.as_json() for one in found], "next_cursor": next_cursor})


def seen_by(caller: Caller, asked: dict[str, Any]) -> dict[str, str | None]:
    """Return the tenant and the user whose jobs the caller may list; None: of all.

    Raises KeyRefused if the caller asks for another's.
    """
    tenant, user = asked.get("tenant"), asked.get("user")
    if not caller.any_tenant:
        tenant, _ = identity(caller, tenant)
    if caller.user is not None and not caller.any_user:
        _, user = identity(caller, tenant, user)
    return {"tenant": tenant, "user": user}


def cursor_of(job_id: str) -> str:
    """Return the cursor of the page after this job. It is checked when it comes, so it is open."""
    return base64.urlsafe_b64encode(f"{_MARK}{job_id}".encode()).decode().rstrip("=")


async def _place(door: Door, caller: Caller, params: dict[str, str]) -> str:
    """Return the job of the cursor; raise InvalidRequest if it is none of the caller's."""
    cursor = params["cursor"]
    if "before" in params:
        raise InvalidRequest("before", params["before"], "give cursor or before, not both")
    job_id = job_in(cursor)
    if job_id is None or not await door.ownership.of(caller, [job_id]):
        remedy = "give next_cursor of the page before, or leave it out"
        raise InvalidRequest("cursor", cursor, remedy)
    return job_id


def job_in(cursor: str) -> str | None:
    """Return the job that a cursor holds; None if it is no cursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        return None
    return text.removeprefix(_MARK) if text.startswith(_MARK) else None
