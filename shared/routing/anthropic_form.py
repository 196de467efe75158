"""What of a request in Anthropic's form the dialect of OpenAI cannot carry. Pure.

`workers/providers/openai_request.py` translates what has a counterpart in a chat completion. It
leaves out what only makes an answer faster, cheaper or better explained. All else is named here,
also fields that are newer than we are: a model of OpenAI's dialect is refused for such a request,
and is no fallback of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from headgate.shared.job.request import Request
from headgate.shared.job.request_checks import BETAS, VERSION

Lost = Iterator[str]
"""The paths of fields that cannot be carried."""

LEFT_OUT = frozenset({BETAS, VERSION, "cache_control", "diagnostics"})
"""Params that only help Anthropic's cache, or name features whose fields are looked at anyway."""

CARRIED = frozenset({"system", "temperature", "tools", "top_p"})
"""Params that are translated whatever their value; the parts of some are looked at one by one."""

MOST_STOPS = 4
"""OpenAI takes at most so many stop texts (API reference, `stop`)."""

LONGEST_TOOL_NAME = 64
"""OpenAI's limit for the name of a function (API reference). Anthropic's is 128."""

EFFORTS = frozenset({"low", "medium", "high", "xhigh", "max"})
THINKING = frozenset({"enabled", "adaptive", "disabled"})
CHOICES = frozenset({"auto", "any", "tool", "none"})

#: The fields of each block that can be carried, by the role that may have it.
_COMMON = frozenset({"type", "cache_control"})
_TEXT = _COMMON | {"text", "citations"}
_IMAGE = _COMMON | {"source"}
_DOCUMENT = _COMMON | {"source", "title", "context", "citations"}
_BLOCKS: Mapping[str, Mapping[str, frozenset[str]]] = {
    "system": {"text": _TEXT},
    "user": {
        "text": _TEXT,
        "image": _IMAGE,
        "document": _DOCUMENT,
        "tool_result": _COMMON | {"tool_use_id", "content", "is_error"},
    },
    "assistant": {
        "text": _TEXT,
        "tool_use": _COMMON | {"id", "name", "input", "caller"},
        "thinking": _COMMON | {"thinking", "signature"},
        "redacted_thinking": _COMMON | {"data"},
    },
    "tool_result": {"text": _TEXT, "image": _IMAGE, "document": _DOCUMENT},
    "document": {"text": _TEXT, "image": _IMAGE},
}

_TOOL = frozenset({
    "type", "name", "description", "input_schema", "strict", "cache_control",
    "eager_input_streaming", "allowed_callers", "defer_loading", "input_examples",
})  # fmt: skip


def beyond_chat(request: Request) -> Lost:
    """Yield the fields of a request in Anthropic's form that a chat completion cannot carry."""
    for name, value in request.params.items():
        if value is None or name in LEFT_OUT or name in CARRIED:
            continue
        check = _CHECKS.get(name)
        if check is None:
            yield f"params.{name}"
        else:
            yield from (f"params.{name}{rest}" for rest in check(value))
    yield from _of_tools(request.params.get("tools"))
    yield from _of_content(request.params.get("system"), "system", "params.system")
    messages = request.messages or ()
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        yield from _strange(message, frozenset({"role", "content"}), where)
        yield from _of_content(message.get("content"), str(message.get("role")), where + ".content")
    if messages and messages[-1].get("role") == "assistant":  # the beginning of the answer
        yield f"messages[{len(messages) - 1}]"


def _strange(fields: Mapping[str, Any], known: frozenset[str], where: str) -> Lost:
    yield from (f"{where}.{k}" for k, v in fields.items() if k not in known and v is not None)


def _of_content(content: object, role: str, where: str) -> Lost:
    """Yield what is lost of a content that stands in a message, a tool's result or a document."""
    for j, block in enumerate(content if isinstance(content, list) else ()):
        yield from _of_block(block, _BLOCKS[role], f"{where}[{j}]")


def _of_block(block: object, kinds: Mapping[str, frozenset[str]], where: str) -> Lost:
    kind = str(block.get("type")) if isinstance(block, dict) else ""
    if not isinstance(block, dict) or kind not in kinds:
        yield where
        return
    yield from _strange(block, kinds[kind], where)
    source = block.get("source")
    match kind:
        case "image" if not _has_image(source):
            yield f"{where}.source"
        case "document":
            yield from _of_document(block, where)
        case "tool_result":
            yield from _of_content(block.get("content"), kind, f"{where}.content")
        case "tool_use" if _fields(block.get("caller")).get("type", "direct") != "direct":
            yield f"{where}.caller"


def _fields(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _has_image(source: object) -> bool:
    match source:
        case {"type": "base64", "media_type": str(), "data": str()} | {"type": "url", "url": str()}:
            return True
    return False


def _of_document(block: Mapping[str, Any], where: str) -> Lost:
    """Yield what is lost of a document: OpenAI takes files as bytes only, and cites nothing."""
    if _fields(block.get("citations")).get("enabled"):
        yield f"{where}.citations"
    match block.get("source"):
        case {"type": "base64", "media_type": "application/pdf", "data": str()}:
            return
        case {"type": "text", "data": str()}:
            return
        case {"type": "content", "content": content}:
            yield from _of_content(content, "document", f"{where}.source.content")
        case _:
            yield f"{where}.source"


def _of_tools(tools: object) -> Lost:
    """Yield the tools that Anthropic runs or defines, and what is lost of the others."""
    for i, tool in enumerate(tools if isinstance(tools, list) else ()):
        where = f"params.tools[{i}]"
        if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
            yield where
            continue
        yield from _strange(tool, _TOOL, where)
        name = tool.get("name")
        if not isinstance(name, str) or len(name) > LONGEST_TOOL_NAME:
            yield f"{where}.name"
        if tool.get("allowed_callers") not in (None, [], ["direct"]):
            yield f"{where}.allowed_callers"
        yield from (f"{where}.{k}" for k in ("defer_loading", "input_examples") if tool.get(k))


def _unless(carried: Callable[[Any], bool]) -> Callable[[Any], Iterable[str]]:
    """Return a check that names the param as a whole unless it is `carried`."""
    return lambda value: () if carried(value) else ("",)


def _forgets_thinking(value: object) -> bool:
    """Return whether a context management only clears thinking, which is left out in any case."""
    if not isinstance(value, dict) or value.keys() - {"edits"}:
        return False
    edits = value.get("edits") or []
    return all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_thinking_")
        for edit in edits
    )


def _only_user_id(value: object) -> bool:
    return isinstance(value, dict) and all(v is None for k, v in value.items() if k != "user_id")


def _is_schema(form: object) -> bool:
    match form:
        case {"type": "json_schema", "schema": dict()}:
            return True
    return False


def _of_output(config: object) -> Lost:
    """Yield what is lost of `output_config`."""
    if not isinstance(config, dict):
        yield ""
        return
    for name, value in config.items():
        carried = name == "effort" and str(value) in EFFORTS
        if value is not None and not carried and not (name == "format" and _is_schema(value)):
            yield f".{name}"


def _type_in(kinds: frozenset[str]) -> Callable[[Any], Iterable[str]]:
    return _unless(lambda value: str(_fields(value).get("type")) in kinds)


_CHECKS: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "context_management": _unless(_forgets_thinking),
    "max_tokens": _unless(lambda value: value > 0),
    "mcp_servers": _unless(lambda value: value == []),
    "metadata": _unless(_only_user_id),
    "output_config": _of_output,
    "output_format": _unless(_is_schema),
    "service_tier": _unless(lambda value: value in ("auto", "standard_only")),
    "speed": _unless(lambda value: value == "standard"),
    "stop_sequences": _unless(lambda value: isinstance(value, list) and len(value) <= MOST_STOPS),
    "thinking": _type_in(THINKING),
    "tool_choice": _type_in(CHOICES),
}
"""Params that can be carried with some values only: each check yields the paths of what is lost."""

REMEDIES: Mapping[str, str] = {
    "params.context_management": "leave it out",
    "params.max_tokens": "give at least 1",
    "params.stop_sequences": f"give at most {MOST_STOPS}",
}
"""What to do in the place of a field that OpenAI's dialect cannot carry."""
