"""The addresses of the gateway, and what answers at each."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.producer.gateway import health, models
from headgate.producer.gateway.answering import Answer, dialect_of, door_of, vendors
from headgate.producer.gateway.calls.body import decoded
from headgate.producer.gateway.calls.call import Kind
from headgate.producer.gateway.calls.read_call import read_json
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.count_tokens import count_tokens
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.addresses import jobs_routes
from headgate.producer.gateway.openapi import docs_page, openapi_json
from headgate.producer.gateway.reports.addresses import report_routes
from headgate.producer.gateway.responses.addresses import responses_routes


def _calls(kind: Kind) -> Answer:
    async def answer(request: Request) -> Response:
        return await door_of(request).answer(request, kind)

    return answer


async def _list_models(door: Door, request: Request) -> Response:
    caller = await door.caller_of(request, None)
    at = await asyncio.to_thread(door.operations.current)
    found = models.models_of(at.catalog, caller)
    if dialect_of(request) == "anthropic":
        return json_response(models.anthropic_list(found, request.query_params))
    return json_response(models.openai_list(found))


async def _show_model(door: Door, request: Request) -> Response:
    caller = await door.caller_of(request, None)
    at = await asyncio.to_thread(door.operations.current)
    found = models.one_model(at.catalog, caller, request.path_params["name"])
    is_anthropic = dialect_of(request) == "anthropic"
    return json_response(
        models.anthropic_form(found) if is_anthropic else models.openai_form(found)
    )


async def _count_tokens(door: Door, request: Request) -> Response:
    caller = await door.caller_of(request, "chat")
    body = decoded(await read_json(request, door.settings))
    at = await asyncio.to_thread(door.operations.current)
    await door.require_models(caller, [str(body.get("model") or door.settings.model)])
    return json_response({"input_tokens": count_tokens(at.catalog, body)})


async def _ready(door: Door, _request: Request) -> Response:
    found = await health.readiness(door.operations, stopping=door.departures.stopping)
    return health.shown(found)


async def _live(_door: Door, _request: Request) -> Response:
    return json_response({"status": "alive"})


async def _openapi(door: Door, request: Request) -> Response:
    await door.require_reader(request)
    return json_response(openapi_json())


async def _docs(door: Door, request: Request) -> Response:
    await door.require_reader(request)
    return Response(docs_page(), media_type="text/html")


def routes() -> list[Route]:
    """Return all addresses of the gateway."""
    return [
        Route("/v1/chat/completions", _calls("chat"), methods=["POST"]),
        Route("/v1/embeddings", _calls("embeddings"), methods=["POST"]),
        Route("/v1/moderations", _calls("moderations"), methods=["POST"]),
        Route("/v1/messages", _calls("messages"), methods=["POST"]),
        Route("/v1/messages/count_tokens", vendors(_count_tokens), methods=["POST"]),
        Route("/v1/models", vendors(_list_models), methods=["GET"]),
        Route("/v1/models/{name:path}", vendors(_show_model), methods=["GET"]),
        Route("/health/live", vendors(_live), methods=["GET"]),
        Route("/health/ready", vendors(_ready), methods=["GET"]),
        Route("/openapi.json", vendors(_openapi), methods=["GET"]),
        Route("/docs", vendors(_docs), methods=["GET"]),
        *responses_routes(),
        *jobs_routes(),
        *report_routes(),
    ]
