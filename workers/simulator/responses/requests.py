"""Reads requests of OpenAI's Responses into a SimulatedRequest, or refuses them as OpenAI does."""

from typing import Any

import orjson

from headgate.workers.simulator.openai.requests import IMAGE_CHARS, REASONING
from headgate.workers.simulator.request import (
    THINK,
    Invalid,
    Json,
    SimulatedRequest,
    Tool,
    count_field,
    digest_of,
    flag_field,
    more_tools,
    number_field,
    text_field,
    tool_to_call,
)

FIELDS = frozenset({
    "background", "context_management", "conversation", "include", "input", "instructions",
    "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation",
    "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key",
    "prompt_cache_options", "prompt_cache_retention", "reasoning", "safety_identifier",
    "service_tier", "store", "stream", "stream_options", "temperature", "text", "tool_choice",
    "tools", "top_logprobs", "top_p", "truncation", "user",
})  # fmt: skip
ROLES = frozenset({"system", "developer", "user", "assistant"})
TEXTS = frozenset({"input_text", "output_text", "summary_text"})
LEAST_TOKENS = 16
MOST_METADATA = 16


def read_response(body: Json) -> SimulatedRequest:
    """Read a request; raises Invalid where OpenAI would refuse it.

    `history` of the body is what `SimulatedRecord` has put before its input.
    """
    history = body.pop("history", [])
    _check(body)
    model = text_field(body, "model")
    items = items_of(body)
    if not items and not history and not body.get("prompt"):
        raise Invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    everything = [*history, *items]
    _pair_calls(everything)
    texts, last, images = _texts(everything, body.get("instructions"))
    tools = _tools(body)
    text = "\n".join(texts)
    chars = sum(map(len, texts)) + images * IMAGE_CHARS
    if tools:
        chars += len(orjson.dumps(body["tools"]))
    digest = digest_of({**body, "history": history} if history else body)
    tool = _tool(body, tools, everything, last, digest)
    wants_json, schema = _format((body.get("text") or {}).get("format"))
    effort = (body.get("reasoning") or {}).get("effort")
    return SimulatedRequest(
        model=model,
        text=text,
        last=last,
        chars=chars,
        digest=digest,
        max_tokens=count_field(body, "max_output_tokens"),
        stream=flag_field(body, "stream"),
        flex=body.get("service_tier") == "flex",
        wants_json=wants_json,
        schema=schema,
        tool=tool,
        more_tools=more_tools(tools, tool, last),
        thinks=THINK in last,
        reasons=REASONING.match(model) is not None and effort not in ("none", "minimal"),
        body=body,
    )


def _check(body: Json) -> None:
    """Raise Invalid for values that OpenAI refuses."""
    for name in body.keys() - FIELDS:
        raise Invalid(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    number_field(body, "temperature", 2)
    number_field(body, "top_p", 1)
    number_field(body, "top_logprobs", 20)
    most = count_field(body, "max_output_tokens")
    if most is not None and most < LEAST_TOKENS:
        raise Invalid(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= "
            f"{LEAST_TOKENS}, but got {most} instead.",
            param="max_output_tokens",
            code="integer_below_min_value",
        )
    if len(body.get("metadata") or {}) > MOST_METADATA:
        raise Invalid("Invalid 'metadata': too many properties.", "metadata")
    if flag_field(body, "background") and body.get("store") is False:
        raise Invalid("Background mode requires store to be true.", "background")


def items_of(body: Json) -> list[Json]:
    """Return the input as a list of items; raises Invalid."""
    found = body.get("input")
    if found is None:
        return []
    if isinstance(found, str):
        return [{"type": "message", "role": "user", "content": found}]
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Invalid(
            "Invalid type for 'input': expected a string or an array of items.",
            param="input",
            code="invalid_type",
        )
    return found


def _pair_calls(items: list[Json]) -> None:
    """Raise Invalid for an output without its call, and for a call without its output."""
    calls = {str(item.get("call_id")) for item in items if _is_call(item)}
    outputs = {str(item.get("call_id")) for item in items if _is_output(item)}
    for call_id in outputs - calls:
        raise Invalid(
            f"No tool call found for function call output with call_id {call_id}.", param="input"
        )
    for call_id in calls - outputs:
        raise Invalid(f"No tool output found for function call {call_id}.", param="input")


def _is_call(item: Json) -> bool:
    return item.get("type") in ("function_call", "custom_tool_call")


def _is_output(item: Json) -> bool:
    return item.get("type") in ("function_call_output", "custom_tool_call_output")


def _texts(items: list[Json], instructions: Any) -> tuple[list[str], str, int]:
    """Return all texts, the last one of the user, and the number of images."""
    texts = [instructions] if isinstance(instructions, str) else []
    last, images = "", 0
    for place, item in enumerate(items):
        kind = item.get("type", "message")
        content = item.get("content")
        if kind != "message":
            content = item.get("output", item.get("arguments", item.get("input")))
        elif item.get("role") not in ROLES:
            raise Invalid(
                f"Invalid value: '{item.get('role')}'. Supported values are: 'assistant', "
                "'system', 'developer', and 'user'.",
                param=f"input[{place}]",
                code="invalid_value",
            )
        own, more = _parts(content, f"input[{place}].content")
        texts += own
        images += more
        if kind == "message" and item.get("role") == "user" and own:
            last = own[-1]
    return texts, last, images


def _parts(content: Any, where: str) -> tuple[list[str], int]:
    if isinstance(content, str):
        return [content], 0
    texts: list[str] = []
    images = 0
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "input_image":
            images += 1
        elif kind not in ("input_file", "input_audio", "refusal", "reasoning_text"):
            raise Invalid(
                f"Invalid value: '{kind}'. Supported values are: 'input_text', 'input_image', "
                "'output_text', 'refusal' and 'input_file'.",
                param=where,
                code="invalid_value",
            )
    return texts, images


def _tools(body: Json) -> list[Tool]:
    """Return the functions and custom tools; others are taken, and never called."""
    tools: list[Tool] = []
    for place, one in enumerate(body.get("tools") or ()):
        kind = one.get("type") if isinstance(one, dict) else None
        if not isinstance(kind, str):
            raise Invalid(
                f"Missing required parameter: 'tools[{place}].type'.",
                param=f"tools[{place}].type",
                code="missing_required_parameter",
            )
        if kind not in ("function", "custom"):
            continue
        if not isinstance(one.get("name"), str):
            raise Invalid(
                f"Missing required parameter: 'tools[{place}].name'.",
                param=f"tools[{place}].name",
                code="missing_required_parameter",
            )
        tools.append(Tool(one["name"], one.get("parameters") or {}))
    return tools


def _tool(
    body: Json, tools: list[Tool], items: list[Json], last: str, digest: bytes
) -> Tool | None:
    """Return the tool that the answer calls; none after the result of one, unless it must."""
    must, named = _choice(body.get("tool_choice"))
    answered = bool(items) and _is_output(items[-1])
    may = body.get("tool_choice") != "none" and (must or not answered)
    return tool_to_call(tools if may else [], must, named, last, digest)


def _choice(found: Any) -> tuple[bool, str | None]:
    """Return whether a tool must be called, and which one."""
    match found:
        case {"type": "function" | "custom", "name": name}:
            return True, str(name)
        case {"type": "allowed_tools", "mode": "required", "tools": [{"name": name}, *_]}:
            return True, str(name)
    return found == "required", None


def _format(found: Any) -> tuple[bool, Json | None]:
    """Return whether JSON is wanted, and the schema that it must satisfy."""
    match found:
        case None | {"type": "text"}:
            return False, None
        case {"type": "json_object"}:
            return True, None
        case {"type": "json_schema", "schema": schema, "name": str()}:
            return True, schema
    raise Invalid(
        "Invalid value for 'text.format': expected text, json_object or json_schema with a name.",
        param="text.format",
        code="invalid_value",
    )
