"""Checks of a request in the form of OpenAI's Responses: its items, and params of another form."""

from __future__ import annotations

from typing import Any

from headgate.shared.errors import InvalidRequest

ITEM_ROLES = frozenset({"system", "developer", "user", "assistant"})

OF_RESPONSES = frozenset({
    "background", "context_management", "conversation", "include", "instructions",
    "max_output_tokens", "max_tool_calls", "metadata", "moderation", "parallel_tool_calls",
    "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
})  # fmt: skip
"""The params of a request in this form, from OpenAI's description of `POST /responses`."""

WITHOUT_INPUT = ("conversation", "instructions", "previous_response_id", "prompt")
"""Params that may stand in the place of an input."""

OF_CHAT = {
    "frequency_penalty": "leave it out",
    "functions": "give them as params.tools",
    "max_completion_tokens": "give it as params.max_output_tokens",
    "max_tokens": "give it as params.max_output_tokens",
    "n": "ask for samples (submit_many(samples=N), --samples, samples of a batch line)",
    "presence_penalty": "leave it out",
    "reasoning_effort": 'give it as params.reasoning, such as {"effort": "low"}',
    "response_format": 'give it as params.text, such as {"format": {...}}',
    "seed": "leave it out",
    "stop": "leave it out",
    "verbosity": 'give it as params.text, such as {"verbosity": "low"}',
}
"""Params of chat completions that a request in this form cannot have, and what to do instead."""

_SET_BY_US = {
    "background": "each job runs in the background already; leave it out",
    "input": "this is not a param; give it beside params",
    "messages": "this form has none; give `input`",
    "model": "this is not a param; give it beside params",
    "stream": "this is not a param; give it beside params",
    "stream_options": "this is not a param; leave it out",
}

_TEXTS = ("conversation", "instructions", "previous_response_id")


_TEXT_PARTS = {
    "input_text": "text", "output_text": "text", "text": "text", "summary_text": "text",
    "reasoning_text": "text", "refusal": "refusal",
}  # fmt: skip
"""Parts of a message that are a text, and the field that has it."""


def length_param(dialect: object) -> str:
    """Return the param that limits the output in the form of this dialect."""
    return "max_output_tokens" if dialect == "responses" else "max_tokens"


def check_items(items: list[dict[str, Any]]) -> None:
    """Raise InvalidRequest unless each item has a type, or is a message with a role and content."""
    for i, item in enumerate(items):
        kind = item.get("type", "message")
        if not isinstance(kind, str) or not kind:
            raise InvalidRequest(f"input[{i}].type", kind, 'name the item\'s type, as in "message"')
        if kind == "function_call_output":
            _check_parts(f"input[{i}].output", item.get("output"))
        if kind != "message":
            continue
        _check_parts(f"input[{i}].content", item.get("content"))
        role, content = item.get("role"), item.get("content")
        if not isinstance(role, str) or role not in ITEM_ROLES:
            raise InvalidRequest(f"input[{i}].role", role, f"use one of {sorted(ITEM_ROLES)}")
        if not isinstance(content, str) and not (
            isinstance(content, list) and all(isinstance(part, dict) for part in content)
        ):
            raise InvalidRequest(f"input[{i}].content", content, "give a text or a list of parts")


def _check_parts(field: str, parts: object) -> None:
    """Raise InvalidRequest for a part whose type or text is no text."""
    for j, part in enumerate(parts if isinstance(parts, list) else ()):
        if not isinstance(part, dict):
            continue
        kind = part.get("type", "")
        if not isinstance(kind, str):
            raise InvalidRequest(f"{field}[{j}].type", kind, 'name its type, as in "input_text"')
        written = _TEXT_PARTS.get(kind)
        if written is not None and not isinstance(part.get(written), str):
            raise InvalidRequest(f"{field}[{j}].{written}", part.get(written), "give a text")


def _check_tools(field: str, tools: object) -> None:
    """Raise InvalidRequest for functions whose names, or those who may call them, are none."""
    for i, tool in enumerate(tools if isinstance(tools, list) else ()):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            continue
        name, callers = tool.get("name"), tool.get("allowed_callers")
        if not isinstance(name, str):
            raise InvalidRequest(f"{field}[{i}].name", name, "name the function")
        if callers is not None and not isinstance(callers, list):
            raise InvalidRequest(f"{field}[{i}].allowed_callers", callers, "give a list of names")


def check_responses_params(params: dict[str, Any]) -> None:
    """Raise InvalidRequest for params that Headgate sets itself, and for ids that are no texts."""
    for name, remedy in _SET_BY_US.items():
        if name in params and not (name == "background" and not params[name]):
            raise InvalidRequest(f"params.{name}", params[name], remedy)
    for name in _TEXTS:
        value = params.get(name)
        if name == "conversation" and isinstance(value, dict):
            value = value.get("id", 0)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"params.{name}", value, "give a text")
    _check_tools("params.tools", params.get("tools"))
    choice = params.get("tool_choice")
    if isinstance(choice, dict):
        _check_tools("params.tool_choice.tools", choice.get("tools"))
    if params.get("previous_response_id") and params.get("conversation"):
        remedy = "give this or params.conversation, not both"
        raise InvalidRequest("params.previous_response_id", params["previous_response_id"], remedy)


def with_responses_form(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request with `instructions` among its params, and its dialect named.

    Only a request in the form of Responses has instructions, or items as input.
    """
    given, items = fields.get("instructions"), fields.get("input")
    has_items = isinstance(items, list) and bool(items) and isinstance(items[0], dict)
    dialect = fields.get("dialect")
    if "instructions" not in fields and not (has_items and dialect is None):
        return fields
    fields = {name: value for name, value in fields.items() if name != "instructions"}
    if given is None and not has_items:
        return fields
    if dialect not in (None, "responses"):
        remedy = "only the dialect responses has instructions; give a system message"
        raise InvalidRequest("instructions", given, remedy)
    fields["dialect"] = "responses"
    if given is None:
        return fields
    params = fields.get("params")
    if not isinstance(params, dict | None):
        return fields
    if (params or {}).get("instructions") is not None:
        raise InvalidRequest("instructions", given, "give it once: here or as params.instructions")
    return {**fields, "params": {**(params or {}), "instructions": given}}
