"""The addresses of reports, as the OpenAPI description has them."""

from __future__ import annotations

from typing import Any

from headgate.producer.gateway.jobs.description import (
    REQUEST,
    TEXT,
    Responses,
    described,
    in_query,
)
from headgate.producer.gateway.reports.usage import TEXTS


def report_paths(responses: Responses) -> dict[str, Any]:
    """Return the description of the addresses of reports."""

    def get(summary: str, *names: str) -> dict[str, Any]:
        return {"get": described(responses, summary, *(in_query(name, TEXT) for name in names))}

    def post(summary: str) -> dict[str, Any]:
        return {"post": described(responses, summary, body=REQUEST)}

    return {
        "/v1/route": post("Which model a request for auto would get now, and why"),
        "/v1/check": post("Whether a request would be let in now, and what it would hold"),
        "/v1/usage": get("Who used what", "by", "limit", *TEXTS),
        "/v1/limits": get("Limits in force, and how full they are", "pool", "tenant"),
        "/v1/budgets": get("How much of each budget is spent"),
        "/v1/cache": get("How full the cache is; for a key for any tenant"),
        "/health": get("Whether calls can be taken; more with the scope view"),
    }
