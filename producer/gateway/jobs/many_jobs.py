"""Many jobs by their ids: wait until some have ended, or cancel them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.errors import UnknownJob
from headgate.producer.gateway.calls.body import decoded
from headgate.producer.gateway.calls.own_faults import own_error
from headgate.producer.gateway.calls.read_call import read_json
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_for
from headgate.producer.gateway.jobs.one_job import CANCEL_WAIT_S
from headgate.producer.gateway.jobs.params import (
    flag_in,
    ids_in,
    once_each,
    require_only,
    seconds_in,
)
from headgate.producer.gateway.jobs.waiting import while_there
from headgate.shared.errors import HeadgateError
from headgate.shared.job.result import Result

End = Result | HeadgateError

FEW = 20
"""So many results are written at once."""

WAIT_S = 30.0
"""How long a call waits for the first end, unless it says how long."""


async def _body_and_own(door: Door, request: Request) -> tuple[dict[str, Any], set[str]]:
    """Return the body, and which of its ids are jobs of the caller."""
    require_only(once_each(request))
    caller = await caller_for(door, request, "jobs")
    body = decoded(await read_json(request, door.settings))
    return body, await door.ownership.of(caller, ids_in(body))


async def wait(door: Door, request: Request) -> Response:
    """Answer once at least one of the jobs has ended, with all that have.

    With `open` the others come, too, as they are then.
    """
    body, own = await _body_and_own(door, request)
    require_only(body, "ids", "wait_s", "open")
    shows_open = flag_in(body, "open")
    wait_s = seconds_in(body, "wait_s", WAIT_S, door.settings.gateway_wait_s)
    found: dict[str, End] = {
        job_id: UnknownJob(job_id) for job_id in body["ids"] if job_id not in own
    }
    if own:
        waiters = (await door.parts()).waiters
        ids = [job_id for job_id in dict.fromkeys(body["ids"]) if job_id in own]
        work = waiters.some_ended(ids, 0 if found else wait_s)
        found |= await while_there(door, request, work) or {}
        if shows_open and (left := [job_id for job_id in ids if job_id not in found]):
            found |= await asyncio.to_thread(door.operations.read_many, left)
    return await _answered(lambda: {job_id: _shown(end) for job_id, end in found.items()}, found)


async def cancel_many(door: Door, request: Request) -> Response:
    """Cancel the jobs; answer with their results in the order of the ids."""
    body, own = await _body_and_own(door, request)
    require_only(body, "ids", "timeout_s")
    timeout_s = seconds_in(body, "timeout_s", CANCEL_WAIT_S, door.settings.gateway_wait_s)
    ids = [job_id for job_id in dict.fromkeys(body["ids"]) if job_id in own]
    found: Mapping[str, End] = {}
    if ids:
        found = await _cancelled(door, request, ids, timeout_s)
    ends = [found.get(job_id) or UnknownJob(job_id) for job_id in body["ids"]]
    return await _answered(lambda: [_shown(end) for end in ends], ends)


async def _cancelled(
    door: Door, request: Request, ids: Sequence[str], timeout_s: float
) -> dict[str, End]:
    """Cancel the jobs; return their results, once the workers of running jobs have stopped."""
    cancelled = await asyncio.to_thread(door.operations.cancel, ids)
    found: dict[str, End] = {**cancelled.ended}
    left, until = set(cancelled.running), time.monotonic() + timeout_s
    waiters = (await door.parts()).waiters
    while left and (left_s := until - time.monotonic()) > 0:
        ended = await while_there(door, request, waiters.some_ended(sorted(left), left_s))
        if ended is None:
            break
        found |= ended
        left -= ended.keys()
    for job_id in left:
        found[job_id] = await asyncio.to_thread(_as_it_is, door, job_id)
    return found


def _as_it_is(door: Door, job_id: str) -> End:
    try:
        return door.operations.result(job_id)
    except HeadgateError as error:
        return error


async def _answered(results: Callable[[], object], ends: Sized) -> Response:
    """Return the answer with these results; of many it is written while other calls go on."""

    def write() -> Response:
        return json_response({"results": results()})

    return write() if len(ends) <= FEW else await asyncio.to_thread(write)


def _shown(end: End) -> dict[str, Any]:
    """Return the result, or an object with nothing but the error."""
    return end.as_json() if isinstance(end, Result) else {"error": own_error(end)}
