"""One job by its id: its result, its status, its end before time, and a new try."""

from __future__ import annotations

import asyncio
import math

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.errors import UnknownJob
from headgate.producer.gateway.calls.headers import of_result
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_for, own_job
from headgate.producer.gateway.jobs.params import once_each, require_only, seconds_in
from headgate.producer.gateway.jobs.waiting import ended_within
from headgate.shared.job.ids import now_ms
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import ms_of

CANCEL_WAIT_S = 10.0
"""How long a call waits for the worker of a running job, which looks every second."""

LATEST_S = 30
"""After so many seconds at most a caller looks again."""


async def show(door: Door, request: Request) -> Response:
    """Answer with the result: 200 if the job has ended, 202 if it has not."""
    params = once_each(request)
    require_only(params, "wait_s")
    wait_s = seconds_in(params, "wait_s", 0, door.settings.gateway_wait_s)
    job_id = await own_job(door, request)
    result = await ended_within(door, request, job_id, wait_s)
    if result is None:
        result = await asyncio.to_thread(door.operations.result, job_id)
    return shown(result)


def shown(result: Result) -> Response:
    """Return the answer that shows a result as it is now."""
    if result.ended:
        return json_response(result.as_json(), of_result(result))
    after = {"x-headgate-job-id": result.id, "retry-after": str(_again_after_s(result))}
    return json_response(result.as_json(), after, status=202)


def _again_after_s(result: Result) -> int:
    """Return after how many seconds it is worth looking again."""
    until_ms = None if result.waiting_for is None else ms_of(result.waiting_for.until)
    left_s = 0 if until_ms is None else math.ceil((until_ms - now_ms()) / 1000)
    return min(max(left_s, 1), LATEST_S)


async def status(door: Door, request: Request) -> Response:
    """Answer with the status, also if the result has expired."""
    require_only(once_each(request))
    job_id = await own_job(door, request)
    found = await asyncio.to_thread(door.operations.status, job_id)
    return json_response({"id": job_id, "status": found}, {"x-headgate-job-id": job_id})


async def cancel(door: Door, request: Request) -> Response:
    """Cancel the job; answer with its result, once its worker has stopped."""
    params = once_each(request)
    require_only(params, "timeout_s")
    timeout_s = seconds_in(params, "timeout_s", CANCEL_WAIT_S, door.settings.gateway_wait_s)
    job_id = await own_job(door, request)
    cancelled = await asyncio.to_thread(door.operations.cancel, [job_id])
    result = cancelled.ended.get(job_id)
    if result is None and job_id not in cancelled.running:
        raise UnknownJob(job_id)
    if result is None:
        result = await ended_within(door, request, job_id, timeout_s)
    if result is None:
        result = await asyncio.to_thread(door.operations.result, job_id)
    return json_response(result.as_json(), of_result(result))


async def retry(door: Door, request: Request) -> Response:
    """Queue a failed job again under its id."""
    require_only(once_each(request))
    caller = await caller_for(door, request, "jobs")
    job_id = await door.ownership.require(caller, request.path_params["id"])
    if caller.models is not None:  # another key of the tenant may have asked for another model
        found = await asyncio.to_thread(door.operations.result, job_id)
        await door.require_models(caller, [found.model])
    await asyncio.to_thread(door.operations.retry, job_id)
    headers = {"location": f"/v1/jobs/{job_id}", "x-headgate-job-id": job_id}
    return json_response({"id": job_id, "status": "queued"}, headers, status=202)
