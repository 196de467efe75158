"""What of a request in the form of Responses a chat completion cannot carry. Pure.

Nothing is dropped in silence. A provider that has no Responses is refused for such a request, and
is no fallback of it. That also holds for params and items that are newer than we are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import LOGPROBS, SAME, is_function
from headgate.shared.responses.items import LEFT_OUT as ITEMS_LEFT_OUT
from headgate.shared.responses.items import OUTPUT_TEXTS

Lost = Iterator[str]

LEFT_OUT = frozenset({
    "background", "max_tool_calls", "metadata", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "store", "top_logprobs",
})  # fmt: skip
"""Params that Headgate sees to itself, that only help OpenAI's caches, or that are read elsewhere.

`max_tool_calls` bounds tools that the vendor runs, of which there are none in a chat completion.
"""

_NAMED = frozenset({"instructions", "max_output_tokens", "tools", *SAME, *LEFT_OUT})

_TEXT = frozenset({"format", "verbosity"})
_REASONING = frozenset({"effort", "summary", "generate_summary", "context"})
_INCLUDE = frozenset({LOGPROBS, "reasoning.encrypted_content"})
_CALL = frozenset({"type", "id", "call_id", "name", "arguments", "status", "caller"})
_RESULT = frozenset({"type", "id", "call_id", "output", "status"})
_MESSAGE = frozenset({"type", "id", "role", "content", "status", "phase"})


def beyond_chat(request: Request) -> str:
    """Return the first field that a chat completion cannot carry; empty if there is none."""
    return next(_beyond(request), "")


def _beyond(request: Request) -> Lost:
    params = request.params
    for name, value in params.items():
        if value is None or name in _NAMED:
            continue
        check = _CHECKS.get(name)
        if check is None or not check(value):
            yield f"params.{name}"
    for i, tool in enumerate(_items(params.get("tools"))):
        if not (is_function(tool) and _carries_tool(tool)):
            yield f"params.tools[{i}]"
    for i, item in enumerate(_items(request.input)):
        yield from _of_item(item, f"input[{i}]")


def _of_item(item: Mapping[str, Any], where: str) -> Lost:
    kind = item.get("type", "message")
    match kind:
        case "message":
            yield from _strange(item, _MESSAGE, where)
            yield from _of_parts(item.get("content"), f"{where}.content", item.get("role"))
        case "function_call":
            yield from _strange(item, _CALL, where)
            if not _is_direct(item.get("caller")):
                yield f"{where}.caller"
        case "function_call_output":
            yield from _strange(item, _RESULT, where)
            yield from _of_parts(item.get("output"), f"{where}.output", "tool")
        case _:
            if kind not in ITEMS_LEFT_OUT:
                yield where


def _strange(fields: Mapping[str, Any], known: frozenset[str], where: str) -> Lost:
    yield from (f"{where}.{k}" for k, v in fields.items() if k not in known and v is not None)


def _of_parts(content: object, where: str, role: object) -> Lost:
    for j, part in enumerate(_items(content)):
        if not (isinstance(part, dict) and _carries_part(part, role)):
            yield f"{where}[{j}]"


def _carries_part(part: Mapping[str, Any], role: object) -> bool:
    match part:
        case {"type": kind, "text": str()} if kind in OUTPUT_TEXTS:
            return True
        case {"type": "refusal", "refusal": str()}:
            return role == "assistant"
        case {"type": "input_image", "image_url": str()}:
            return role in ("user", "tool")
        case {"type": "input_file", "file_data": str()}:
            return role in ("user", "tool")
    return False


def _is_direct(caller: object) -> bool:
    return caller is None or (isinstance(caller, dict) and caller.get("type") == "direct")


def _carries_tool(tool: Mapping[str, Any]) -> bool:
    """Return whether the model is to see the function at once, and to call it itself."""
    callers = tool.get("allowed_callers")
    return not tool.get("defer_loading") and (callers is None or "direct" in callers)


def _carries_text(text: Any) -> bool:
    if not isinstance(text, dict) or not text.keys() <= _TEXT:
        return False
    form = text.get("format")
    kinds = ("text", "json_object", "json_schema")
    return form is None or (isinstance(form, dict) and form.get("type") in kinds)


def _carries_choice(choice: Any) -> bool:
    match choice:
        case "auto" | "none" | "required" | {"type": "function", "name": str()}:
            return True
        case {"type": "allowed_tools", "mode": str(), "tools": list(tools)}:
            return all(map(is_function, tools))
    return False


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "include": lambda names: isinstance(names, list) and set(map(str, names)) <= _INCLUDE,
    "reasoning": lambda wish: isinstance(wish, dict) and wish.keys() <= _REASONING,
    "text": _carries_text,
    "tool_choice": _carries_choice,
    "truncation": lambda mode: mode == "disabled",
}
"""Params that a chat completion can carry with some values only."""

REMEDIES: Mapping[str, str] = {
    "params.conversation": "give the items of the conversation as input",
    "params.previous_response_id": "give the items of the conversation as input",
    "params.prompt": "give its text as params.instructions",
}
"""What to do in the place of a field that a chat completion cannot carry."""


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
