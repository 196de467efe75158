"""What all addresses of the gateway have in common: their door, their dialect, their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.producer.gateway.calls.call import new_request_id
from headgate.producer.gateway.calls.dialects import dialect_at
from headgate.producer.gateway.calls.headers import request_headers
from headgate.producer.gateway.calls.own_faults import own_refusal
from headgate.producer.gateway.door import Door, own_error_of, stopping
from headgate.shared.job.request import Dialect

Answer = Callable[[Request], Awaitable[Response]]
AnswerAtDoor = Callable[[Door, Request], Awaitable[Response]]


def door_of(request: Request) -> Door:
    """Return the door of the process that got this request."""
    door: Door = request.app.state.door
    return door


def dialect_of(request: Request) -> Dialect:
    """Return the dialect in which an address answers that both vendors have."""
    return dialect_at(request.url.path, request.headers)


def vendors(answer: AnswerAtDoor) -> Answer:
    """Return what answers at an address, with errors in the caller's dialect."""

    def refused(request: Request, error: Exception, request_id: str) -> Response:
        return door_of(request).refused(dialect_of(request), error, request_id)

    return _with_errors(answer, refused)


def ours_at(path: str, **answers: AnswerAtDoor) -> Route:
    """Return the route of an address of ours, by its methods.

    Its errors have their kind and their facts.
    """

    async def answer(door: Door, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await answers[method](door, request)

    def refused(_request: Request, error: Exception, request_id: str) -> Response:
        return own_refusal(own_error_of(error, request_id), request_id)

    return Route(path, _with_errors(answer, refused), methods=list(answers))


def _with_errors(
    answer: AnswerAtDoor, refused: Callable[[Request, Exception, str], Response]
) -> Answer:
    async def with_errors(request: Request) -> Response:
        door, request_id = door_of(request), new_request_id()
        try:
            response = await answer(door, request)
        except ClientDisconnect:
            return Response(status_code=499)
        except asyncio.CancelledError:
            if not door.departures.stopping:
                raise
            return refused(request, stopping(), request_id)
        except Exception as error:
            return refused(request, error, request_id)
        for name, value in request_headers(request_id).items():
            response.headers.setdefault(name, value)
        return response

    return with_errors
