"""Translates a request in Anthropic's form into the body of a chat completion. Pure.

What changes besides the names (each rule has its test):

* Messages: see `openai_messages.py`.
* `max_tokens` goes under the name that the model knows, and is never above the model's maximum.
* Tools become functions. `strict` is kept if the schema keeps OpenAI's rules for it: all properties
  required, and no others. The same holds for the schema of `output_config.format`.
* `tool_choice`: `any` becomes `required`, and `disable_parallel_tool_use` a param of its own.
* `thinking` and `output_config.effort` become `reasoning_effort` at models that reason
  (`reasoning.py`). At other models they are left out.
* `metadata.user_id` becomes `safety_identifier` at OpenAI itself, as a hash if it is longer than
  64 characters. Other servers may refuse the field, so it is left out there.
* `service_tier` `standard_only` becomes `default`. `auto` is OpenAI's default, and left out.
* Params that are null, and those that only help Anthropic's cache, are left out.
* What has no counterpart never comes here (`shared/routing/anthropic_form.py`).
"""

from __future__ import annotations

import hashlib
from typing import Any

from headgate.shared.job.request import Request
from headgate.workers.providers.openai_messages import chat_messages
from headgate.workers.providers.reasoning import bare_name, effort_at_openai, is_openais_reasoner

Fields = dict[str, Any]

FORMAT_NAME = "answer"
"""The name that OpenAI wants for the schema of an answer; Anthropic has none."""

LONGEST_IDENTIFIER = 64
"""The most characters of OpenAI's `safety_identifier`."""


def limit_name(model: str, *, vendor: bool) -> str:
    """Return the param that limits the output for this model at this address.

    OpenAI itself calls `max_tokens` deprecated, and its reasoning models refuse it. Most compatible
    servers know only `max_tokens`, unless they serve one of OpenAI's reasoning models.
    """
    new = vendor or is_openais_reasoner(bare_name(model))
    return "max_completion_tokens" if new else "max_tokens"


def translated_body(
    request: Request, model: str, max_output_tokens: int, *, vendor: bool
) -> Fields:
    """Return the body of a chat completion for a request in Anthropic's form."""
    params = {name: value for name, value in request.params.items() if value is not None}
    body: Fields = {
        "model": model,
        "messages": chat_messages(request.chat(), params.get("system")),
    }
    if wanted := params.get("max_tokens"):
        most = max_output_tokens if max_output_tokens > 0 else wanted
        body[limit_name(model, vendor=vendor)] = min(wanted, most)
    body.update((name, params[name]) for name in ("temperature", "top_p") if name in params)
    if stops := params.get("stop_sequences"):
        body["stop"] = stops
    _put_tools(body, params)
    effort = effort_at_openai(params, model, has_tools="tools" in body)
    if effort is not None:
        body["reasoning_effort"] = effort
    if (form := _format(params)) is not None:
        body["response_format"] = form
    user_id = _fields(params.get("metadata")).get("user_id")
    if vendor and isinstance(user_id, str) and user_id:
        body["safety_identifier"] = _identifier(user_id)
    if params.get("service_tier") == "standard_only":
        body["service_tier"] = "default"
    return body


def _put_tools(body: Fields, params: Fields) -> None:
    """Translate `tools` and `tool_choice`. OpenAI refuses an empty list, which asks for nothing."""
    tools = params.get("tools")
    if isinstance(tools, list) and tools:
        body["tools"] = [{"type": "function", "function": _function(tool)} for tool in tools]
    choice = _fields(params.get("tool_choice"))
    match choice:
        case {"type": "auto" | "none" as kind}:
            if "tools" in body:
                body["tool_choice"] = kind
        case {"type": "any"}:
            body["tool_choice"] = "required"
        case {"type": "tool", "name": name}:
            body["tool_choice"] = {"type": "function", "function": {"name": name}}
    if choice.get("disable_parallel_tool_use") and "tools" in body:
        body["parallel_tool_calls"] = False


def _function(tool: Fields) -> Fields:
    function = {"name": tool.get("name")}
    if tool.get("description") is not None:
        function["description"] = tool["description"]
    schema = tool.get("input_schema")
    if schema is not None:
        function["parameters"] = schema
    if tool.get("strict") and is_strict(schema):
        function["strict"] = True
    return function


def _format(params: Fields) -> Fields | None:
    """Return `response_format` for the schema of the answer, whichever of two params has it."""
    form = _fields(params.get("output_config")).get("format") or params.get("output_format")
    schema = _fields(form).get("schema")
    if schema is None:
        return None
    named = {"name": FORMAT_NAME, "schema": schema, "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": named}


def is_strict(schema: object) -> bool:
    """Return whether each object of a JSON schema requires all its properties and no others."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        names = set(properties) if isinstance(properties, dict) else set()
        required = schema.get("required")
        if schema.get("additionalProperties") is not False:
            return False
        if names - set(required if isinstance(required, list) else ()):
            return False
    inner = {**schema, "properties": list(properties.values())} if properties else schema
    return all(map(is_strict, inner.values()))


def _identifier(user_id: str) -> str:
    if len(user_id) <= LONGEST_IDENTIFIER:
        return user_id
    return hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()


def _fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}
