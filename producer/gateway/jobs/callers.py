"""Who calls an address of ours, and which of the jobs are the caller's."""

from __future__ import annotations

from starlette.requests import Request

from headgate.producer.callers.allowed import narrowed, require_scope
from headgate.producer.callers.caller import Caller, Scope
from headgate.producer.gateway.calls.own_fields import PREFIX
from headgate.producer.gateway.door import Door


async def caller_for(door: Door, request: Request, scope: Scope | None) -> Caller:
    """Return who calls, as the tenant and the user that the headers name; raise KeyRefused."""
    caller = await door.caller_of(request, scope)
    named = (request.headers.get(PREFIX + name) or None for name in ("tenant", "user"))
    return narrowed(caller, *named)


async def caller_with_any(door: Door, request: Request, *scopes: Scope) -> Caller:
    """Return who calls, as `caller_for`; raise KeyRefused unless the key has one of the scopes."""
    caller = await caller_for(door, request, None)
    if caller.scopes.isdisjoint(scopes):
        require_scope(caller, scopes[0])
    return caller


async def own_job(door: Door, request: Request) -> str:
    """Return the id in the address; raise UnknownJob if it is no job of the caller."""
    caller = await caller_for(door, request, "jobs")
    return await door.ownership.require(caller, request.path_params["id"])
