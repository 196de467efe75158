"""The addresses of reports, and of what would become of a request."""

from __future__ import annotations

from starlette.routing import Route

from headgate.producer.gateway.answering import ours_at
from headgate.producer.gateway.reports.health_report import health
from headgate.producer.gateway.reports.limits import budgets, cache, limits
from headgate.producer.gateway.reports.questions import check, route
from headgate.producer.gateway.reports.usage import usage


def report_routes() -> list[Route]:
    """Return the addresses of reports."""
    return [
        ours_at("/v1/route", POST=route),
        ours_at("/v1/check", POST=check),
        ours_at("/v1/usage", GET=usage),
        ours_at("/v1/limits", GET=limits),
        ours_at("/v1/budgets", GET=budgets),
        ours_at("/v1/cache", GET=cache),
        ours_at("/health", GET=health),
        ours_at("/v1/health", GET=health),
    ]
