"""`POST /v1/route` and `/v1/check`: what would become of a request. Nothing is queued."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.callers.caller import Caller
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.submit import named_models, read_request
from headgate.producer.gateway.reports.visible import sees_all
from headgate.producer.submit.admission_check import AdmissionCheck
from headgate.shared.admission.scopes import GLOBAL, shown
from headgate.shared.job.request import AUTO


async def route(door: Door, request: Request) -> Response:
    """Answer with the model that a request for "auto" would get now, and why."""
    caller, fields = await read_request(door, request)
    await door.require_models(caller, [AUTO])
    found = await asyncio.to_thread(door.operations.route, None, fields)
    return json_response(found.as_json())


async def check(door: Door, request: Request) -> Response:
    """Answer whether a request would be let in now, and what it would hold."""
    caller, fields = await read_request(door, request)
    await door.require_models(caller, named_models(fields, door.settings.model))
    found = await asyncio.to_thread(door.operations.check, None, fields)
    return json_response(_for(caller, found).as_json())


def _for(caller: Caller, found: AdmissionCheck) -> AdmissionCheck:
    """Return what the caller may learn: not how much all tenants together have spent."""
    of_all = f"the budget of {shown(GLOBAL)} "
    if found.refusal is None or not found.refusal.startswith(of_all) or sees_all(caller):
        return found
    return replace(found, refusal="a budget of the whole installation is spent")
