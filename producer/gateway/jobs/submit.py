"""`POST /v1/jobs`: submit one job, or up to 10,000 in one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.callers.allowed import require_models
from headgate.producer.callers.caller import Caller
from headgate.producer.callers.refused import KeyRefused
from headgate.producer.errors import TierLimit
from headgate.producer.gateway.calls.body import decoded
from headgate.producer.gateway.calls.own_faults import own_error
from headgate.producer.gateway.calls.own_fields import SET_BY_GATEWAY, name_caller, of_headers
from headgate.producer.gateway.calls.read_call import read_json
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_for
from headgate.producer.gateway.jobs.params import (
    first_of_each,
    flag_in,
    once_each,
    require_only,
)
from headgate.producer.results.owners import JobOwner
from headgate.producer.submit.fields import RequestFields
from headgate.producer.submit.prepare import checked_samples
from headgate.producer.submit.submit_each import Outcome
from headgate.shared.errors import HeadgateError, InvalidRequest

MOST_JOBS = 10_000
"""Jobs of one call, each sample counted."""

MOST_BYTES = 100_000_000
"""So large a body may be with all its samples: each of them has the whole request."""


class Given(NamedTuple):
    """What holds for all requests of a call.

    `fields`: those of the headers. `key`: the idempotency key of the call, if it has one. `size`:
    bytes of the body.
    """

    caller: Caller
    fields: Mapping[str, Any]
    key: str | None
    size: int = 0


async def submit(door: Door, request: Request) -> Response:
    """Submit the job or the jobs of the body; answer with their ids."""
    given, body = await _read_call(door, request)
    if "jobs" in body:
        return await _submit_many(door, body, given)
    one = request_fields(body, given, given.key)
    models = named_models(one, door.settings.model)
    await door.require_models(given.caller, models)
    job_id = await door.submit(one)
    door.ownership.note([job_id], _owner(one))
    headers = {"location": f"/v1/jobs/{job_id}", "x-headgate-job-id": job_id}
    headers |= await door.rates_of(one, models[0])
    return json_response({"id": job_id, "status": "queued"}, headers, status=202)


async def read_request(door: Door, request: Request) -> tuple[Caller, RequestFields]:
    """Return who calls, and the request in the body; raise InvalidRequest and KeyRefused."""
    given, body = await _read_call(door, request)
    return given.caller, request_fields(body, given, given.key)


async def _read_call(door: Door, request: Request) -> tuple[Given, dict[str, Any]]:
    """Return what the headers say, and the body."""
    require_only(once_each(request))
    caller = await caller_for(door, request, "jobs")
    headers = first_of_each(request)
    fields = of_headers(headers)
    key = fields.pop("idempotency_key", None) or headers.get("idempotency-key")
    raw = await read_json(request, door.settings)
    return Given(caller, fields, key, len(raw)), decoded(raw)


async def _submit_many(door: Door, body: Mapping[str, Any], given: Given) -> Response:
    require_only(body, "jobs", "all_or_none", "samples")
    jobs, samples = body["jobs"], checked_samples(body.get("samples", 1))
    if not isinstance(jobs, list):
        raise InvalidRequest("jobs", jobs, "give a list of requests")
    if not 1 <= len(jobs) * samples <= MOST_JOBS:
        count = f"{len(jobs)} requests, {samples} samples of each"
        raise InvalidRequest("jobs", count, f"give 1 to {MOST_JOBS} jobs in one call")
    if given.size * samples > MOST_BYTES:
        remedy = (
            f"with its samples a body may have {MOST_BYTES // 1_000_000} MB; send fewer at once"
        )
        raise InvalidRequest("samples", samples, remedy)
    act = _all_or_none if flag_in(body, "all_or_none") else _each
    async with door.bulk:  # ten thousand take a second or two, in which other calls go on
        return await asyncio.to_thread(_answer, act, door, jobs, samples, given)


Act = Callable[[Door, list[Any], int, Given], list[Outcome]]
"""Submits the jobs; returns what became of each sample."""


def _answer(act: Act, door: Door, jobs: list[Any], samples: int, given: Given) -> Response:
    """Submit the jobs; return the answer."""
    outcomes = act(door, jobs, samples, given)
    found = [
        {"id": one, "status": "queued"} if isinstance(one, str) else {"error": own_error(one)}
        for one in outcomes
    ]
    queued = sum(isinstance(one, str) for one in outcomes)
    counts = {"queued": queued, "refused": len(outcomes) - queued}
    return json_response({"jobs": found, **counts}, status=202)


def _each(door: Door, jobs: list[Any], samples: int, given: Given) -> list[Outcome]:
    """Submit the requests that are good."""
    outcomes: list[Outcome] = [HeadgateError()] * (len(jobs) * samples)
    good: dict[int, RequestFields] = {}
    for place, found in enumerate(_read(door, jobs, given)):
        if isinstance(found, HeadgateError):
            outcomes[place * samples : (place + 1) * samples] = [found] * samples
        else:
            good[place] = found
    if good:
        done = door.operations.submit_each(list(good.values()), samples)
        for n, place in enumerate(good):
            own = done[n * samples : (n + 1) * samples]
            outcomes[place * samples : (place + 1) * samples] = own
    return outcomes


def _all_or_none(door: Door, jobs: list[Any], samples: int, given: Given) -> list[Outcome]:
    """Submit all requests; raise what is wrong with the first bad one, with nothing queued."""
    good: list[RequestFields] = []
    for place, found in enumerate(_read(door, jobs, given)):
        if isinstance(found, HeadgateError):
            raise _placed(found, f"jobs[{place}]")
        good.append(found)
    try:
        return [*door.operations.submit_many(good, samples)]
    except (InvalidRequest, TierLimit) as error:
        raise _renamed(error) from None


def _read(door: Door, jobs: list[Any], given: Given) -> list[RequestFields | HeadgateError]:
    """Return the fields of each request, or why the caller may not submit it."""
    caller = given.caller
    catalog = None if caller.models is None else door.operations.current().catalog
    found: list[RequestFields | HeadgateError] = []
    for place, one in enumerate(jobs):
        key = None if given.key is None else f"{given.key}/{place}"
        try:
            fields = request_fields(one, given, key)
            if catalog is not None:
                require_models(caller, named_models(fields, door.settings.model), catalog)
        except (InvalidRequest, KeyRefused) as error:
            found.append(error)
        else:
            found.append(fields)
    return found


def request_fields(body: object, given: Given, key: str | None) -> RequestFields:
    """Return the fields of one request, whose caller is named in them.

    A text is a prompt. `key`: its idempotency key, unless it has its own. Raises InvalidRequest and
    KeyRefused.
    """
    if isinstance(body, str):
        body = {"prompt": body}
    if not isinstance(body, dict):
        raise InvalidRequest("request", body, "give a text or an object with fields of a request")
    for name in SET_BY_GATEWAY & body.keys():
        raise InvalidRequest(name, body[name], "only the gateway sets this field; leave it out")
    fields: dict[str, Any] = {**body, **given.fields}
    if key is not None and fields.get("idempotency_key") is None:
        fields["idempotency_key"] = key
    name_caller(fields, given.caller)
    return fields  # type: ignore[return-value]  # checked when they are submitted


def named_models(fields: RequestFields, default: str) -> list[str]:
    """Return the models that the request names."""
    others = fields.get("fallback")
    named: list[Any] = [fields.get("model") or default]
    return [str(name) for name in named + (others if isinstance(others, list) else [])]


def _owner(fields: RequestFields) -> JobOwner:
    return JobOwner(fields["tenant"], fields.get("user"))


def _placed(error: HeadgateError, place: str) -> HeadgateError:
    """Return the error with the place of its request."""
    if isinstance(error, InvalidRequest):
        field = place if error.field == "request" else f"{place}.{error.field}"
        return InvalidRequest(field, error.value, error.remedy, error.code)
    if isinstance(error, KeyRefused):
        return KeyRefused(error.http_status, error.code, f"{place}: {error.message}")
    return error


def _renamed(error: HeadgateError) -> HeadgateError:
    """Return the error with its request named as in the body: `jobs`, not `requests`."""
    if type(error) is InvalidRequest and error.field.startswith("requests["):
        field = "jobs" + error.field.removeprefix("requests")
        return InvalidRequest(field, error.value, error.remedy, error.code)
    if isinstance(error, TierLimit):
        error.args = (str(error).replace("requests[", "jobs[", 1),)
    return error
