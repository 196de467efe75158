"""The addresses of jobs, as the OpenAPI description has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from headgate.producer.gateway.jobs.list_jobs import FILTERS, MOST_LISTED
from headgate.producer.gateway.jobs.params import MOST_IDS
from headgate.producer.gateway.jobs.submit import MOST_JOBS

Responses = Callable[[str, str], dict[str, Any]]

TEXT = {"type": "string"}
_SECONDS = {"type": "number", "minimum": 0}
_IDS = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": MOST_IDS}
REQUEST = {
    "type": "object",
    "properties": {
        "prompt": TEXT, "model": TEXT, "stream": {"type": "boolean"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "params": {"type": "object"}, "metadata": {"type": "object"},
        "priority": {"enum": ["interactive", "standard", "bulk"]},
        "idempotency_key": TEXT,
    },
}  # fmt: skip
_MANY = {
    "type": "object",
    "required": ["jobs"],
    "additionalProperties": False,
    "properties": {
        "jobs": {"type": "array", "minItems": 1, "maxItems": MOST_JOBS,
                 "items": {"anyOf": [TEXT, REQUEST]}},
        "all_or_none": {"type": "boolean"},
        "samples": {"type": "integer", "minimum": 1, "maximum": 128},
    },
}  # fmt: skip


_ID = {"name": "id", "in": "path", "required": True, "schema": TEXT}


def jobs_paths(responses: Responses) -> dict[str, Any]:
    """Return the description of the addresses of jobs. `responses`: of a good answer's words."""

    call = partial(described, responses)
    filters = [in_query(name, TEXT) for name in (*FILTERS, "cursor")]
    limit = in_query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED})
    wait_s, timeout_s = in_query("wait_s", _SECONDS), in_query("timeout_s", _SECONDS)
    after, pulse_s = in_query("after", TEXT), in_query("pulse_s", _SECONDS)
    one, several = "/v1/jobs/{id}", {"anyOf": [_MANY, REQUEST]}
    return {
        "/v1/jobs": {
            "post": call("Submit a job, or many", body=several, status="202"),
            "get": call("List jobs, the newest first", *filters, limit),
        },
        "/v1/jobs/wait": {
            "post": call(
                "Wait until one of many jobs has ended",
                body=_of_ids("wait_s", open={"type": "boolean"}),
            )
        },
        "/v1/jobs/cancel": {"post": call("Cancel many jobs", body=_of_ids("timeout_s"))},
        one: {
            "get": call("The result of a job; 202 while it has not ended", _ID, wait_s),
            "delete": call("Cancel a job; its result", _ID, timeout_s),
        },
        f"{one}/status": {"get": call("The status of a job", _ID)},
        f"{one}/retry": {"post": call("Queue a failed job again", _ID, status="202")},
        f"{one}/events": {
            "get": call("The text while it is made, as server-sent events", _ID, after, pulse_s)
        },
    }


def described(
    responses: Responses, summary: str, *given: Any, body: Any = None, status: str = "200"
) -> dict[str, Any]:
    """Return the description of one method of an address."""
    made = {"summary": summary, "parameters": list(given), "responses": responses(summary, status)}
    if body is not None:
        content = {"application/json": {"schema": body}}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _of_ids(seconds: str, **others: dict[str, Any]) -> dict[str, Any]:
    properties = {"ids": _IDS, seconds: _SECONDS, **others}
    return {
        "type": "object", "required": ["ids"], "properties": properties,
        "additionalProperties": False,
    }  # fmt: skip


def in_query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a parameter."""
    return {"name": name, "in": "query", "required": False, "schema": schema}
