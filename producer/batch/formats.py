"""The formats of a batch's lines: OpenAI's or the short one as input, OpenAI's as output.

Sources: the OpenAI Batch API (custom_id, method, url, body; response, error) and its chat
completion, response and embeddings objects. Our own fields are under `headgate`. The body of an
answer is what the vendor sent, if it speaks OpenAI's dialect. Other vendors' messages are under
`headgate`.
"""

from __future__ import annotations

from typing import Any

import orjson

from headgate.producer.batch.custom_id import as_given
from headgate.producer.batch.samples import line_and_sample
from headgate.producer.dialects.openai import (
    completion,
    embeddings,
    fields_with_ours,
    is_moderation,
    moderation,
)
from headgate.producer.dialects.responses.response import response
from headgate.producer.submit.defaults import with_defaults
from headgate.shared.errors import InvalidRequest
from headgate.shared.field_faults import closest
from headgate.shared.job.responses_checks import WITHOUT_INPUT

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"
RESPONSES = "/v1/responses"
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
    if not isinstance(url, str) or url not in _INSTEAD:
        raise InvalidRequest("url", url, f"use one of {', '.join(_INSTEAD)}")
    if not isinstance(body, dict):
        raise InvalidRequest("body", body, "must be the request, as a JSON object")
    needed = "messages" if url == CHAT else "input"
    if body.get(needed) is None and not any(body.get(one) for one in _INSTEAD[url]):
        raise InvalidRequest(f"body.{needed}", None, f"is missing; {url} needs it")
    if body.get("stream") not in (None, False):
        raise InvalidRequest("body.stream", body["stream"], "a batch cannot stream; remove it")
    if "params" in body:
        raise InvalidRequest("body.params", body["params"], "put its entries into the body itself")
    if url == MODERATIONS:
        return {**fields_with_ours(body), "dialect": "moderations"}
    return _responses_fields(body) if url == RESPONSES else fields_with_ours(body)


_INSTEAD: dict[str, tuple[str, ...]] = {
    CHAT: ("template",), EMBEDDINGS: ("template",), RESPONSES: WITHOUT_INPUT, MODERATIONS: (),
}  # fmt: skip
"""What may stand in the place of messages and input."""


def _responses_fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return the submit fields of a body of Responses; its `prompt` is none of ours."""
    body = dict(body)
    prompt = body.pop("prompt", None)
    fields = {"input": [], **fields_with_ours(body), "dialect": "responses"}
    if prompt is not None:
        fields["params"] = {**fields.get("params", {}), "prompt": prompt}
    return fields


def output_line(
    place: int,
    batch_id: str,
    custom_id: str,
    result: dict[str, Any],
    asked: dict[str, Any] | None = None,
) -> bytes:
    """Return the line of output of a job that has ended; `result`: as `Result.as_json()`.

    `place`: line and sample, as `headgate.producer.batch.samples` puts them together. `asked`:
    params and model of a request of Responses.
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
        response = {"status_code": 200, "request_id": result["id"], "body": _body(result, asked)}
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


def _body(result: dict[str, Any], asked: dict[str, Any] | None) -> dict[str, Any]:
    if result.get("dialect") == "responses":
        return response(result, asked or {})
    if is_moderation(result.get("message") or {}):
        return moderation(result)
    return embeddings(result) if "embeddings" in result else completion(result)


def _is_openais(message: dict[str, Any]) -> bool:
    names = ("choices", "data", "output", "results")
    return any(isinstance(message.get(name), list) for name in names)
