"""Reads OpenAI's requests into a SimulatedRequest, or refuses them as OpenAI does."""

import re
from typing import Any

import orjson

from headgate.workers.simulator.request import (
    MAX_CHOICES,
    THINK,
    Invalid,
    Json,
    SimulatedRequest,
    Tool,
    count_field,
    digest_of,
    flag_field,
    messages_field,
    more_tools,
    number_field,
    stop_words,
    text_field,
    tool_to_call,
)

REASONING = re.compile(r"(o\d|gpt-5)(?!.*-chat)")
ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
# A low-detail image costs 85 tokens. The simulator counts characters, four a token.
IMAGE_CHARS = 340
DIMENSIONS = {"text-embedding-3-large": 3072}


def read_chat(body: Json) -> SimulatedRequest:
    """Read a chat completion; raises Invalid where OpenAI would refuse it."""
    model = text_field(body, "model")
    texts, last, images = _texts(messages_field(body))
    number_field(body, "temperature", 2)
    number_field(body, "top_p", 1)
    max_tokens = count_field(body, "max_tokens")
    max_tokens = count_field(body, "max_completion_tokens") or max_tokens
    tools = _tools(body)
    text = "\n".join(texts)
    chars = sum(map(len, texts)) + images * IMAGE_CHARS
    if tools:
        chars += len(orjson.dumps(body["tools"]))
    digest = digest_of(body)
    wants_json, schema = _format(body.get("response_format"))
    must, named = _choice(body.get("tool_choice"))
    may = body.get("tool_choice") != "none" and (must or body["messages"][-1]["role"] != "tool")
    tool = tool_to_call(tools if may else [], must, named, last, digest)
    return SimulatedRequest(
        model=model,
        text=text,
        last=last,
        chars=chars,
        digest=digest,
        max_tokens=max_tokens,
        choices=count_field(body, "n", MAX_CHOICES) or 1,
        stream=flag_field(body, "stream"),
        flex=body.get("service_tier") == "flex",
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        wants_json=wants_json,
        schema=schema,
        tool=tool,
        more_tools=more_tools(tools, tool, last),
        thinks=THINK in last,
        stop=stop_words(body.get("stop"), "stop"),
        reasons=REASONING.match(model) is not None
        and body.get("reasoning_effort") not in ("none", "minimal"),
    )


def read_embeddings(body: Json) -> SimulatedRequest:
    """Read an embeddings request; inputs may be texts or token numbers. Raises Invalid."""
    model = text_field(body, "model")
    inputs = _inputs(body.get("input"))
    encoding = body.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise Invalid("Invalid 'encoding_format': expected float or base64.", "encoding_format")
    return SimulatedRequest(
        model=model,
        text="\n".join(inputs),
        last="",
        chars=sum(map(len, inputs)),
        digest=digest_of(body),
        inputs=inputs,
        dimensions=count_field(body, "dimensions", 4096) or DIMENSIONS.get(model, 1536),
        base64=encoding == "base64",
    )


def _texts(messages: list[Json]) -> tuple[list[str], str, int]:
    """Return all texts, the last one of the user, and the number of images."""
    texts: list[str] = []
    last, images = "", 0
    for position, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if role not in ROLES:
            raise Invalid(
                f"Invalid value: '{role}'. Supported values are: 'system', 'assistant', 'user', "
                "'function', 'tool', and 'developer'.",
                param=f"messages[{position}].role",
                code="invalid_value",
            )
        own: list[str] = []
        if isinstance(content, str):
            own.append(content)
        elif isinstance(content, list):
            own, more = _parts(content, f"messages[{position}].content")
            images += more
        elif content is not None or role in ("user", "system", "developer"):
            raise Invalid(
                f"Invalid value for 'content': expected a string or an array, got "
                f"{type(content).__name__}.",
                param=f"messages[{position}].content",
            )
        for call in message.get("tool_calls") or ():
            own.append(str((call.get("function") or {}).get("arguments", "")))
        texts += own
        if role == "user" and own:
            last = own[-1]
    return texts, last, images


def _parts(content: list[Any], where: str) -> tuple[list[str], int]:
    """Return the texts of a message in parts, and the number of images."""
    texts: list[str] = []
    images = 0
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "image_url":
            images += 1
        elif kind not in ("input_audio", "file", "refusal"):
            raise Invalid(
                f"Invalid value: '{kind}' is no content type.", param=where, code="invalid_value"
            )
    return texts, images


def _tools(body: Json) -> list[Tool]:
    tools: list[Tool] = []
    for position, one in enumerate(body.get("tools") or ()):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Invalid(
                f"Missing required parameter: 'tools[{position}].function.name'.",
                param=f"tools[{position}].function.name",
                code="missing_required_parameter",
            )
        tools.append(Tool(function["name"], function.get("parameters") or {}))
    return tools


def _choice(found: Any) -> tuple[bool, str | None]:
    """Return whether a tool must be called, and which one."""
    if isinstance(found, dict):
        return True, str((found.get("function") or {}).get("name"))
    return found == "required", None


def _format(found: Any) -> tuple[bool, Json | None]:
    """Return whether JSON is wanted, and the schema that it must satisfy."""
    if found is None:
        return False, None
    match found.get("type") if isinstance(found, dict) else found:
        case "text":
            return False, None
        case "json_object":
            return True, None
        case "json_schema":
            return True, (found.get("json_schema") or {}).get("schema")
        case other:
            raise Invalid(
                f"Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', "
                "and 'text'.",
                param="response_format.type",
                code="invalid_value",
            )


def _inputs(found: Any) -> tuple[str, ...]:
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list) and found and all(type(one) is int for one in found):
        found = [found]
    if not isinstance(found, list) or not 1 <= len(found) <= 2048:
        raise Invalid("'$.input' is invalid: expected 1 to 2048 texts.", param="input")
    texts: list[str] = []
    for one in found:
        if isinstance(one, list) and one and all(type(token) is int for token in one):
            # Four characters a token, because the simulator counts characters.
            texts.append("".join(f"{token % 1000:03d} " for token in one))
        elif isinstance(one, str) and one:
            texts.append(one)
        else:
            raise Invalid("'$.input' is invalid: an input cannot be empty.", param="input")
    return tuple(texts)
