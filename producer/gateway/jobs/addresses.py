"""The addresses of jobs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headgate.producer.gateway.answering import AnswerAtDoor, ours
from headgate.producer.gateway.door import Door
from headgate.producer.gateway.jobs.events import events
from headgate.producer.gateway.jobs.list_jobs import list_jobs
from headgate.producer.gateway.jobs.many_jobs import cancel_many, wait
from headgate.producer.gateway.jobs.one_job import cancel, retry, show, status
from headgate.producer.gateway.jobs.submit import submit


def jobs_routes() -> list[Route]:
    """Return the addresses of jobs."""
    return [
        _at("/v1/jobs", POST=submit, GET=list_jobs),
        _at("/v1/jobs/wait", POST=wait),
        _at("/v1/jobs/cancel", POST=cancel_many),
        _at("/v1/jobs/{id}", GET=show, DELETE=cancel),
        _at("/v1/jobs/{id}/status", GET=status),
        _at("/v1/jobs/{id}/retry", POST=retry),
        _at("/v1/jobs/{id}/events", GET=events),
    ]


def _at(path: str, **answers: AnswerAtDoor) -> Route:
    """Return the route of an address that answers these methods."""

    async def answer(door: Door, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await answers[method](door, request)

    return Route(path, ours(answer), methods=list(answers))
