"""The addresses of the gateway, and what answers at each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.producer.gateway import health, models
from headgate.producer.gateway.calls.body import decoded
from headgate.producer.gateway.calls.call import Kind, new_request_id
from headgate.producer.gateway.calls.dialects import dialect_at
from headgate.producer.gateway.calls.headers import request_headers
from headgate.producer.gateway.calls.read_call import read_json
from headgate.producer.gateway.calls.replies import json_response
from headgate.producer.gateway.count_tokens import count_tokens
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.openapi import docs_page, openapi_json
from headgate.shared.job.request import Dialect

Answer = Callable[[Request], Awaitable[Response]]


def door_of(request: Request) -> Door:
    """Return the door of the process that got this request."""
    door: Door = request.app.state.door
    return door


def dialect_of(request: Request) -> Dialect:
    """Return the dialect in which an address answers that both vendors have."""
    return dialect_at(request.url.path, request.headers)


def _calls(kind: Kind) -> Answer:
    async def answer(request: Request) -> Response:
        return await door_of(request).answer(request, kind)

    return answer


def _answers(answer: Callable[[Door, Request], Awaitable[Response]]) -> Answer:
    """Return what answers at an address, with errors in the caller's dialect."""

    async def with_errors(request: Request) -> Response:
        door, request_id = door_of(request), new_request_id()
        try:
            response = await answer(door, request)
        except Exception as error:
            return door.refused(dialect_of(request), error, request_id)
        for name, value in request_headers(request_id).items():
            response.headers.setdefault(name, value)
        return response

    return with_errors


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


async def _health(door: Door, _request: Request) -> Response:
    return await health.health(door.operations, stopping=door.departures.stopping)


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
        Route("/v1/messages/count_tokens", _answers(_count_tokens), methods=["POST"]),
        Route("/v1/models", _answers(_list_models), methods=["GET"]),
        Route("/v1/models/{name:path}", _answers(_show_model), methods=["GET"]),
        Route("/health", _answers(_health), methods=["GET"]),
        Route("/v1/health", _answers(_health), methods=["GET"]),
        Route("/health/live", _answers(_live), methods=["GET"]),
        Route("/health/ready", _answers(_health), methods=["GET"]),
        Route("/openapi.json", _answers(_openapi), methods=["GET"]),
        Route("/docs", _answers(_docs), methods=["GET"]),
    ]
