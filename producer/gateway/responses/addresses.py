"""What answers at the addresses of responses, other than POST /v1/responses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.producer.callers.caller import Caller
from headgate.producer.client.client import CANCEL_WAIT_S
from headgate.producer.dialects.fields import Fields
from headgate.producer.dialects.responses.body import (
    form_fields,
    is_background,
    listed,
    request_items,
)
from headgate.producer.errors import JobTimeout, ResultExpired
from headgate.producer.gateway.answering import door_of, vendors
from headgate.producer.gateway.calls.body import decoded
from headgate.producer.gateway.calls.call import GatewayCall, new_request_id
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.find_response import FoundResponse, find_response
from headgate.producer.gateway.calls.previous_response import continued, named_before, whole_input
from headgate.producer.gateway.calls.read_call import last_event, read_json
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.callers import caller_for
from headgate.shared.cost import tokens
from headgate.shared.job.request import AUTO, request_from
from headgate.shared.job.result import Result

MOST_ITEMS = 100
"""Items of one page, as OpenAI has it; 20 is its default."""


def responses_routes() -> list[Route]:
    """Return the addresses of responses."""
    one = "/v1/responses/{id}"
    return [
        Route("/v1/responses", _create, methods=["POST"]),
        Route("/v1/responses/input_tokens", vendors(count_input), methods=["POST"]),
        Route("/v1/responses/compact", vendors(_compact), methods=["POST"]),
        Route(one, vendors(_one), methods=["GET", "DELETE"]),
        Route(f"{one}/cancel", vendors(cancel), methods=["POST"]),
        Route(f"{one}/input_items", vendors(list_input), methods=["GET"]),
    ]


async def _create(request: Request) -> Response:
    return await door_of(request).answer(request, "responses")


async def _compact(_door: Door, _request: Request) -> Response:
    words = "responses are not compacted here; leave out items that are not needed any more"
    raise CallRefused("not_found", words)


async def _one(door: Door, request: Request) -> Response:
    return await (delete if request.method == "DELETE" else show)(door, request)


async def _found(door: Door, request: Request) -> tuple[Caller, FoundResponse]:
    """Return who calls, and the response in the address."""
    caller = await caller_for(door, request, "chat")
    return caller, await find_response(door.operations, caller, request.path_params["id"])


async def show(door: Door, request: Request) -> Response:
    """Answer GET /v1/responses/{id}: the response as it is now, or its stream."""
    caller, found = await _found(door, request)
    if not _truth(request, "stream"):
        return json_response(found.body())
    call = GatewayCall(
        dialect="responses",
        kind="responses",
        caller=caller,
        fields={"stream": found.request.stream},
        request_id=new_request_id(),
        model=found.asked["model"],
        wait_s=found.request.deadline_s,
        is_patient=True,
        detach=True,
        after=last_event(request, first=0),
        background=is_background(found.request),
        is_known=True,
        asked=found.asked,
    )
    return await door.stream(request, call, found.job_id)


async def cancel(door: Door, request: Request) -> Response:
    """Answer POST /v1/responses/{id}/cancel: the response once it has ended."""
    _, found = await _found(door, request)
    if not is_background(found.request):
        words = "only a response with background: true can be cancelled"
        raise CallRefused("invalid_request", words, param="response_id")
    return json_response(found.body(await _stopped(door, found)))


async def _stopped(door: Door, found: FoundResponse) -> Result:
    """Cancel the job if it has not ended; return it as it is then."""
    if found.result.ended:
        return found.result
    job_id = found.job_id
    cancelled = await asyncio.to_thread(door.operations.cancel, [job_id])
    if (ended := cancelled.ended.get(job_id)) is not None:
        return ended
    waiters = (await door.parts()).waiters
    try:
        return await waiters.ended(job_id, CANCEL_WAIT_S)
    except JobTimeout:
        return await asyncio.to_thread(door.operations.result, job_id)


async def delete(door: Door, request: Request) -> Response:
    """Answer DELETE /v1/responses/{id}: its input and output go, at its end if it runs."""
    _, found = await _found(door, request)
    with suppress(ResultExpired):
        await _stopped(door, found)
    await asyncio.to_thread(door.operations.shed, [found.job_id])
    return json_response({"id": found.id, "object": "response", "deleted": True})


async def list_input(door: Door, request: Request) -> Response:
    """Answer GET /v1/responses/{id}/input_items: a page of them, the newest first."""
    caller, found = await _found(door, request)
    query = request.query_params
    items = listed(await _input_of(door, caller, found), found.job_id)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise _wrong("order", order, "use asc or desc")
    limit = query.get("limit", "20")
    if not (
        limit.isascii() and limit.isdigit() and len(limit) < 4 and 1 <= int(limit) <= MOST_ITEMS
    ):
        raise _wrong("limit", limit, f"give a number from 1 to {MOST_ITEMS}")
    if order == "desc":
        items.reverse()
    if (after := query.get("after")) is not None:
        names = [item["id"] for item in items]
        if after not in names:
            raise _wrong("after", after, "no such item")
        items = items[names.index(after) + 1 :]
    page = items[: int(limit)]
    return json_response({
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(items) > len(page),
    })  # fmt: skip


async def _input_of(door: Door, caller: Caller, found: FoundResponse) -> list[Fields]:
    """Return the whole input; that of the response alone if an earlier one is gone."""
    try:
        return await whole_input(door.operations, caller, found)
    except CallRefused:
        return request_items(found.request)


async def count_input(door: Door, request: Request) -> Response:
    """Answer POST /v1/responses/input_tokens: the estimate by which limits are held."""
    caller = await caller_for(door, request, "chat")
    body = decoded(await read_json(request, door.settings))
    name = str(body.get("model") or door.settings.model)
    at = await asyncio.to_thread(door.operations.current)
    await door.require_models(caller, [name])
    fields = form_fields({"input": "", **body})
    call = GatewayCall("responses", "responses", caller, fields, new_request_id(), name, 0)
    if named_before(fields.get("params", {})) is not None:
        fields = (await continued(door.operations, call)).fields
    counted = request_from({**fields, "model": name})
    model = None if name == AUTO else at.catalog.model(name)
    count = tokens.input_tokens(counted, model)
    return json_response({"object": "response.input_tokens", "input_tokens": count})


def _truth(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "false").lower()
    if given not in ("true", "false"):
        raise _wrong(name, given, "use true or false")
    return given == "true"


def _wrong(name: str, value: str, remedy: str) -> CallRefused:
    return CallRefused("invalid_request", f"{name}: {value[:80]!r}: {remedy}", param=name)
