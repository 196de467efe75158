"""The formats of a batch's lines: OpenAI's or the short one as input, OpenAI's as output.

Sources: the OpenAI Batch API (custom_id, method, url, body; response, error) and its chat
completion and embeddings objects. Our own fields are under `headgate`. The body of a response is
what the vendor sent, if it speaks OpenAI's dialect. Other vendors' messages are under `headgate`.
"""

from __future__ import annotations

from typing import Any

import orjson

from headgate.producer.batch.custom_id import as_given
from headgate.producer.batch.samples import line_and_sample
from headgate.producer.dialects.fields import fields_of
from headgate.producer.dialects.openai import (
    completion,
    embeddings,
    fields_with_ours,
    is_moderation,
    moderation,
)
from headgate.producer.submit.defaults import with_defaults
from headgate.shared.errors import InvalidRequest
from headgate.shared.field_faults import closest

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"
_NEEDED = {CHAT: "messages", EMBEDDINGS: "input", MODERATIONS: "input"}
"""What the body of a line to each address must have."""
_OPENAI_KEYS = ("custom_id", "method", "url", "body")
_FAULTS_OF_LINE = ("invalid_request", "unknown_model", "context_length")


def submit_fields(line: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the submit fields of one input line; raise InvalidRequest for an unknown format.

    `defaults`: submit fields for a line without them, as `with_defaults` takes them.
    """
    openai = any(key in line for key in ("method", "url", "body"))
    fields = _from_openai(line) if openai else {k: v for k, v in line.items() if k != "custom_id"}
    return with_defaults(fields, defaults)


def _from_openai(line: dict[str, Any]) -> dict[str, Any]:
    for key in line:
        if key not in _OPENAI_KEYS:
            raise InvalidRequest(key, line[key], f"unknown field; {closest(key, _OPENAI_KEYS)}")
    url, body = line.get("url"), line.get("body")
    if line.get("method", "POST") != "POST":
        raise InvalidRequest("method", line["method"], "use POST")
    if not isinstance(url, str) or url not in _NEEDED:
        raise InvalidRequest("url", url, f"use one of {', '.join(_NEEDED)}")
    if not isinstance(body, dict):
        raise InvalidRequest("body", body, "must be the request, as a JSON object")
    needed = _NEEDED[url]
    if body.get(needed) is None and body.get("template") is None:
        raise InvalidRequest(f"body.{needed}", None, f"is missing; {url} needs it")
    if body.get("stream") not in (None, False):
        raise InvalidRequest("body.stream", body["stream"], "a batch cannot stream; remove it")
    if "params" in body:
        raise InvalidRequest("body.params", body["params"], "put its entries into the body itself")
    fields = fields_with_ours(body)
    return {**fields, "dialect": "moderations"} if url == MODERATIONS else fields


def output_line(place: int, batch_id: str, custom_id: str, result: dict[str, Any]) -> bytes:
    """Return the line of output of a job that has ended; `result`: as `Result.as_json()`.

    `place`: line and sample, as `headgate.producer.batch.samples` puts them together.
    """
    number, _ = line_and_sample(place)
    ours = {**_line_and_sample(place), "batch_id": batch_id, "job_id": result["id"]}
    for name in (
        "status", "model", "model_used", "provider", "cost_usd", "cached", "attempts", "fallback",
        "queued_ms", "latency_ms", "usage", "metadata",
    ):  # fmt: skip
        ours[name] = result.get(name)
    response = error = None
    if result["status"] == "succeeded":
        response = {"status_code": 200, "request_id": result["id"], "body": _body(result)}
        if (message := result.get("message")) is not None and not _is_openais(message):
            ours["message"] = message
    else:
        report = result.get("error") or {}
        code = report.get("code", result["status"])
        message = report.get("message") or f"the job is {result['status']}"
        if code in _FAULTS_OF_LINE:
            message = f"line {number}: {message}"
        error = {"code": code, "message": message}
        ours["retryable"] = report.get("retryable")
        ours["failed_attempts"] = report.get("attempts", [])
    return _encode(result["id"], custom_id, response, error, ours)


def bad_line(place: int, batch_id: str, custom_id: str, code: str, message: str) -> bytes:
    """Return the line of output for a line of input that never became a job."""
    ours = {
        **_line_and_sample(place), "batch_id": batch_id, "job_id": None, "model_used": None,
        "cost_usd": "0", "cached": None, "attempts": 0,
    }  # fmt: skip
    name = "_".join(map(str, _line_and_sample(place).values()))
    return _encode(f"{batch_id}_{name}", custom_id, None, {"code": code, "message": message}, ours)


def _line_and_sample(place: int) -> dict[str, int]:
    """Return the line, and the sample unless it is the first."""
    number, sample = line_and_sample(place)
    return {"line": number, "sample": sample} if sample > 1 else {"line": number}


def _encode(
    id_: str,
    custom_id: str,
    response: dict[str, Any] | None,
    error: dict[str, Any] | None,
    ours: dict[str, Any],
) -> bytes:
    line = {
        "id": f"batch_req_{id_}",
        "custom_id": as_given(custom_id),
        "response": response,
        "error": error,
        "headgate": ours,
    }
    return orjson.dumps(line) + b"\n"


def _body(result: dict[str, Any]) -> dict[str, Any]:
    if is_moderation(fields_of(result.get("message"))):
        return moderation(result)
    return embeddings(result) if "embeddings" in result else completion(result)


def _is_openais(message: dict[str, Any]) -> bool:
    return any(isinstance(message.get(name), list) for name in ("choices", "data", "results"))
