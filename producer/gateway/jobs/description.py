"""The addresses of jobs, as the OpenAPI description has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headgate.producer.gateway.jobs.list_jobs import FILTERS, MOST_LISTED
from headgate.producer.gateway.jobs.params import MOST_IDS
from headgate.producer.gateway.jobs.submit import MOST_JOBS

Responses = Callable[[str, str], dict[str, Any]]

_TEXT = {"type": "string"}
_SECONDS = {"type": "number", "minimum": 0}
_IDS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_IDS}
_REQUEST = {
    "type": "object",
    "properties": {
        "prompt": _TEXT, "model": _TEXT, "stream": {"type": "boolean"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "params": {"type": "object"}, "metadata": {"type": "object"},
        "priority": {"enum": ["interactive", "standard", "bulk"]},
        "idempotency_key": _TEXT,
    },
}  # fmt: skip
_MANY = {
    "type": "object",
    "required": ["jobs"],
    "additionalProperties": False,
    "properties": {
        "jobs": {"type": "array", "minItems": 1, "maxItems": MOST_JOBS,
                 "items": {"anyOf": [_TEXT, _REQUEST]}},
        "all_or_none": {"type": "boolean"},
        "samples": {"type": "integer", "minimum": 1, "maximum": 128},
    },
}  # fmt: skip


_ID = {"name": "id", "in": "path", "required": True, "schema": _TEXT}


def jobs_paths(responses: Responses) -> dict[str, Any]:
    """Return the description of the addresses of jobs. `responses`: of a good answer's words."""

    def call(
        summary: str, *given: dict[str, Any], body: Any = None, status: str = "200"
    ) -> dict[str, Any]:
        made = {"summary": summary, "parameters": list(given),
                "responses": responses(summary, status)}  # fmt: skip
        if body is not None:
            content = {"application/json": {"schema": body}}
            made["requestBody"] = {"required": True, "content": content}
        return made

    def seconds(name: str) -> dict[str, Any]:
        return _query(name, _SECONDS)

    filters = [_query(name, _TEXT) for name in (*FILTERS, "cursor")]
    limit = _query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_LISTED})
    one, several = "/v1/jobs/{id}", {"anyOf": [_MANY, _REQUEST]}
    return {
        "/v1/jobs": {
            "post": call("Submit a job, or many", body=several, status="202"),
            "get": call("List jobs, the newest first", *filters, limit),
        },
        "/v1/jobs/wait": {"post": call(
            "Wait until one of many jobs has ended", body=_of_ids("wait_s"))},
        "/v1/jobs/cancel": {"post": call(
            "Cancel many jobs", body=_of_ids("timeout_s"))},
        one: {
            "get": call("The result of a job; 202 while it has not ended", _ID, seconds("wait_s")),
            "delete": call("Cancel a job; its result", _ID, seconds("timeout_s")),
        },
        f"{one}/status": {"get": call("The status of a job", _ID)},
        f"{one}/retry": {"post": call("Queue a failed job again", _ID, status="202")},
        f"{one}/events": {"get": call(
            "The text of an answer while it is made, as server-sent events",
            _ID, _query("after", _TEXT), seconds("pulse_s"))},
    }  # fmt: skip


def _of_ids(seconds: str) -> dict[str, Any]:
    properties = {"ids": _IDS, seconds: _SECONDS}
    return {
        "type": "object", "required": ["ids"], "properties": properties,
        "additionalProperties": False,
    }  # fmt: skip


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}
