"""The addresses of jobs."""

from __future__ import annotations

from starlette.routing import Route

from headgate.producer.gateway.answering import ours_at
from headgate.producer.gateway.jobs.events import events
from headgate.producer.gateway.jobs.list_jobs import list_jobs
from headgate.producer.gateway.jobs.many_jobs import cancel_many, wait
from headgate.producer.gateway.jobs.one_job import cancel, retry, show, status
from headgate.producer.gateway.jobs.submit import submit


def jobs_routes() -> list[Route]:
    """Return the addresses of jobs."""
    return [
        ours_at("/v1/jobs", POST=submit, GET=list_jobs),
        ours_at("/v1/jobs/wait", POST=wait),
        ours_at("/v1/jobs/cancel", POST=cancel_many),
        ours_at("/v1/jobs/{id}", GET=show, DELETE=cancel),
        ours_at("/v1/jobs/{id}/status", GET=status),
        ours_at("/v1/jobs/{id}/retry", POST=retry),
        ours_at("/v1/jobs/{id}/events", GET=events),
    ]
