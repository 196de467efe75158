"""The gateway's OpenAPI description, and a page that shows it without any script."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

import headgate
from headgate.producer.gateway.jobs.description import jobs_paths
from headgate.producer.gateway.reports.description import report_paths

_TEXT = {"type": "string"}
_WORD = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_NAME = {"type": "string", "minLength": 1, "maxLength": 128}


def _messages(*roles: str) -> dict[str, Any]:
    parts = {"type": "array", "items": {"type": "object"}}
    properties = {"role": {"enum": list(roles)}, "content": {"anyOf": [_TEXT, parts]}}
    item = {"type": "object", "required": ["role", "content"], "properties": properties}
    return {"type": "array", "minItems": 1, "items": item}


_CHAT = {"model": _NAME,
         "messages": _messages("developer", "system", "user", "assistant", "tool", "function"),
         "stream": {"type": "boolean"},
         "max_completion_tokens": {"type": "integer", "minimum": 1},
         "temperature": {"type": "number", "minimum": 0, "maximum": 2}}  # fmt: skip
_MESSAGE = {"model": _NAME, "messages": _messages("user", "assistant"),
            "stream": {"type": "boolean"},
            "max_tokens": {"type": "integer", "minimum": 1},
            "system": {"anyOf": [_TEXT, {"type": "array", "items": {"type": "object"}}]},
            "temperature": {"type": "number", "minimum": 0, "maximum": 1}}  # fmt: skip
_EMBEDDINGS = {
    "model": _NAME,
    "input": {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]},
    "encoding_format": {"enum": ["float", "base64"]},
    "dimensions": {"type": "integer", "minimum": 1},
}
_PART = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["text", "image_url"]}},
}
_MODERATION = {
    "model": _NAME,
    "input": {
        "anyOf": [
            _TEXT,
            {"type": "array", "minItems": 1, "items": _TEXT},
            {"type": "array", "minItems": 1, "items": _PART},
        ]
    },
}
_RESPONSE = {
    "model": _NAME,
    "input": {"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": {"type": "object"}}]},
    "instructions": _TEXT,
    "previous_response_id": {"type": "string", "pattern": "^resp_[0-9a-f]{32}$"},
    "stream": {"type": "boolean"},
    "background": {"type": "boolean"},
    "store": {"type": "boolean"},
    "max_output_tokens": {"type": "integer", "minimum": 1},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
}

_HEADERS: list[tuple[str, str, dict[str, Any]]] = [
    ("x-headgate-priority", "interactive (default), standard or bulk",
     {"enum": ["interactive", "standard", "bulk"]}),
    ("x-headgate-tenant", "whose call it is, if the key allows any tenant", _WORD),
    ("x-headgate-user", "whose call it is, if the key allows any user", _WORD),
    ("x-headgate-deadline-s", "how many seconds the answer is worth waiting for",
     {"type": "number", "exclusiveMinimum": 0, "maximum": 86_400}),
    ("x-headgate-cache", "exact or off", {"enum": ["exact", "off"]}),
    ("x-headgate-fallback", "true, false, or models with commas between them", _TEXT),
    ("x-headgate-idempotency-key", "the same key and body within a day is the same job", _WORD),
    ("x-headgate-detach", "true: the job goes on if the caller goes away",
     {"enum": ["true", "false"]}),
]  # fmt: skip

_ERRORS = {
    "400": "the body is wrong", "401": "no key, or a wrong one", "402": "a budget is used up",
    "403": "the key may not do that", "404": "no such model or address",
    "408": "the body came too slowly", "409": "the idempotency key has another body",
    "413": "the body is too large", "415": "the body is no JSON by its type",
    "429": "a limit of the caller, or of a wrong key's address; see retry-after",
    "500": "a fault of the gateway", "502": "the provider failed",
    "503": "a server or a worker is missing; see retry-after", "504": "no answer in time",
    "529": "the provider is overloaded (Anthropic's form)",
}  # fmt: skip


def _post(summary: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties}
    parameters = [
        {"name": name, "in": "header", "required": False, "description": words, "schema": form}
        for name, words, form in _HEADERS
    ]
    return {"post": {
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": _responses("the answer; with stream: true server-sent events"),
    }}  # fmt: skip


def _get(summary: str, parameters: list[str] | None = None, *, place: str = "path") -> Any:
    given = [
        {"name": name, "in": place, "required": place == "path", "schema": _TEXT}
        for name in parameters or ()
    ]
    return {"get": {"summary": summary, "parameters": given, "responses": _responses("found")}}


def _responses(good: str, status: str = "200") -> dict[str, Any]:
    responses: dict[str, Any] = {
        status: {"description": good, "content": {"application/json": {"schema": {}}}}
    }
    for number, words in _ERRORS.items():
        responses[number] = {"description": words}
    return responses


def _of_a_response() -> dict[str, Any]:
    one, name = "/v1/responses/{id}", ["id"]
    shown = _get("A response as it is now; with ?stream=true its stream", name)
    shown["get"]["parameters"] += [
        {"name": "stream", "in": "query", "required": False, "schema": {"type": "boolean"}},
        {"name": "starting_after", "in": "query", "required": False,
         "schema": {"type": "integer", "minimum": 0}},
    ]  # fmt: skip
    shown["delete"] = _get("Its input and output go", name)["get"]
    return {
        one: shown,
        f"{one}/cancel": {"post": _get("Cancel a background response", name)["get"]},
        f"{one}/input_items": _get("The input of a response, as items", name),
        "/v1/responses/compact": {"post": _get("404: nothing is compacted here")["get"]},
    }


@cache
def openapi_json() -> dict[str, Any]:
    """Return the description of all addresses."""
    paths = {
        "/v1/chat/completions": _post(
            "A chat completion, in OpenAI's form", _CHAT, ["model", "messages"]
        ),
        "/v1/embeddings": _post("Embeddings, in OpenAI's form", _EMBEDDINGS, ["model", "input"]),
        "/v1/moderations": _post("Moderations, in OpenAI's form", _MODERATION, ["input"]),
        "/v1/messages": _post(
            "A message, in Anthropic's form", _MESSAGE, ["model", "messages", "max_tokens"]
        ),
        "/v1/messages/count_tokens": _post(
            "An estimate of input tokens, in Anthropic's form", _MESSAGE, ["model", "messages"]
        ),
        "/v1/responses": _post("A response, in OpenAI's form", _RESPONSE, ["model", "input"]),
        "/v1/responses/input_tokens": _post(
            "An estimate of input tokens, in OpenAI's form", _RESPONSE, ["model", "input"]
        ),
        **_of_a_response(),
        "/v1/models": _get(
            "The models of the key", ["limit", "after_id", "before_id"], place="query"
        ),
        "/v1/models/{model}": _get("One model", ["model"]),
        "/health/live": _get("Whether the process answers; no key needed"),
        "/health/ready": _get("Whether calls can be taken; no key needed"),
        **jobs_paths(_responses),
        **report_paths(_responses),
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headgate", "version": headgate.__version__},
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
        "paths": paths,
    }


@cache
def docs_page() -> str:
    """Return the description as a page for people."""
    rows = []
    for path, ways in openapi_json()["paths"].items():
        for method, operation in ways.items():
            rows.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            rows.append(f"<p>{escape(operation['summary'])}</p>")
            rows.append(_table("Parameters", [
                (one["name"], one.get("description", f"in the {one['in']}"))
                for one in operation["parameters"]
            ]))  # fmt: skip
    errors = _table("Errors", list(_ERRORS.items()))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Headgate</title>"
        "<style>body{font:16px/1.5 system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}"
        "td{padding:0 1rem 0 0;vertical-align:top}</style><h1>Headgate</h1>"
        '<p>All of it as <a href="/openapi.json">OpenAPI</a>.</p>' + "".join(rows) + errors
    )


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    cells = "".join(f"<tr><td><code>{escape(a)}</code><td>{escape(b)}</tr>" for a, b in rows)
    return f"<h3>{title}</h3><table>{cells}</table>"
