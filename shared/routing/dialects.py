"""What of a request a dialect cannot carry: fields that only the other vendor has. Pure.

Of a request in OpenAI's form Anthropic's dialect translates what has a counterpart
(`workers/providers/anthropic_request.py`). What has none is named here: a model of Anthropic's
dialect is refused for such a request, and is no fallback of it. So nothing is dropped in silence.
The reverse holds for fallbacks to OpenAI's dialect only: a model of OpenAI's dialect that the
caller names gets every field as it is, because compatible servers know more fields than OpenAI.

A request in Anthropic's form passes unchanged in Anthropic's dialect. What OpenAI's dialect cannot
carry of it is in `anthropic_form.py`, and holds for named models, too. A request in the form of
OpenAI's Responses passes unchanged at providers that have it (`providers.<name>.responses`). Others
get it as a chat completion, or as Anthropic's message made of that; what is lost by it is in
`shared/responses/beyond_chat.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from headgate.shared.job.request import AskedForm, Request
from headgate.shared.responses import beyond_chat as responses_form
from headgate.shared.responses.beyond_chat import beyond_chat
from headgate.shared.responses.chat_form import chat_request
from headgate.shared.routing import anthropic_form

Params = Mapping[str, Any]

ONLY_OPENAI: Mapping[str, tuple[Any, ...]] = {
    "audio": (), "dimensions": (), "encoding_format": (), "frequency_penalty": (0,),
    "function_call": (), "functions": ([],), "logit_bias": ({},), "logprobs": (False,),
    "modalities": (["text"],), "moderation": (), "n": (1,), "presence_penalty": (0,),
    "seed": (), "store": (False,), "top_logprobs": (0,), "verbosity": ("medium",),
    "web_search_options": (),
}  # fmt: skip
"""Params of OpenAI without a counterpart at Anthropic, and the values that ask for nothing.

Null asks for nothing, too. Params with such a value are left out at Anthropic.
"""

HINTS = frozenset(
    {"prediction", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)
"""Params of OpenAI that only make it faster or cheaper. They are left out at Anthropic."""

ONLY_ANTHROPIC = frozenset({
    "cache_control", "container", "context_management", "inference_geo", "mcp_servers",
    "output_config", "speed", "stop_sequences", "system", "thinking", "top_k",
})  # fmt: skip
"""Params of Anthropic without a counterpart in OpenAI's API."""

#: The service tiers that Anthropic has under its own or another name.
TIERS = frozenset({"auto", "default", "standard_only"})

EFFORTS = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
"""The efforts of OpenAI's reasoning models that Anthropic has a counterpart for."""

LEAST_TOP_P = 0.95
"""Claude refuses to think with a lower `top_p`, or with a temperature other than 1."""

_OPENAI_PARTS = frozenset({"text", "image_url", "input_audio", "file", "refusal"})
_OPENAI_TOOLS = frozenset({"function", "custom"})


def beyond_anthropic(request: Request) -> str:
    """Return the first field that Anthropic's dialect cannot carry; empty if there is none."""
    if request.dialect == "anthropic":
        return ""
    if request.dialect == "responses":
        lost = beyond_chat(request) or next(_beyond_anthropic(chat_request(request)), "")
        return "input" if lost.startswith("messages[") else IN_RESPONSES.get(lost, lost)
    return next(_beyond_anthropic(request), "")


def beyond_openai(request: Request) -> str:
    """Return the first field that only Anthropic's dialect has; empty if there is none."""
    if request.dialect == "anthropic":
        return next(anthropic_form.beyond_chat(request), "")
    if request.dialect == "responses":
        return beyond_chat(request)
    return next(_beyond_openai(request), "")


def _beyond_anthropic(request: Request) -> Iterator[str]:
    params = request.params
    for name, value in params.items():
        neutral = ONLY_OPENAI.get(name)
        if neutral is not None and value is not None and value not in neutral:
            yield f"params.{name}"
    for name in params.keys() & _AT_ANTHROPIC.keys():
        if params[name] is not None and not _AT_ANTHROPIC[name](params):
            yield f"params.{name}"
    for i, message in enumerate(request.messages or ()):
        if len(message) > 2 or message.get("role") == "function":
            yield from (f"messages[{i}].{name}" for name in _lost_of_message(message))
        content = message.get("content")
        for j, part in enumerate(content if isinstance(content, list) else ()):
            if _is_lost_part(part):
                yield f"messages[{i}].content[{j}]"


def _beyond_openai(request: Request) -> Iterator[str]:
    params = request.params
    for name in params.keys() & ONLY_ANTHROPIC:
        yield f"params.{name}"
    if params.get("service_tier") == "standard_only":
        yield "params.service_tier"
    for i, tool in enumerate(_items(params.get("tools"))):
        if isinstance(tool, dict) and not _is_openais(tool):
            yield f"params.tools[{i}]"
    choice = params.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("any", "auto", "none", "tool"):
        yield "params.tool_choice"
    for i, message in enumerate(request.messages or ()):
        for j, part in enumerate(_items(message.get("content"))):
            if str(part.get("type")) not in _OPENAI_PARTS:
                yield f"messages[{i}].content[{j}]"


def _is_openais(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") == "function" or not tool.keys().isdisjoint(_OPENAI_TOOLS)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _lost_of_message(message: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of a message beside role and content that Anthropic has nothing like.

    The `name` of a tool's result only repeats that of its call.
    """
    if message.get("role") == "function":
        yield "role"
    if message.get("name") is not None and message.get("role") != "tool":
        yield "name"
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            yield name
    calls = _items(message.get("tool_calls"))
    if not all(isinstance(call, dict) and "function" in call for call in calls):
        yield "tool_calls"


def _is_lost_part(part: Mapping[str, Any]) -> bool:
    """Return whether Anthropic has nothing like this part of a message."""
    kind = part.get("type")
    if kind == "file":
        file = part.get("file")
        return not (isinstance(file, dict) and isinstance(file.get("file_data"), str))
    return kind == "input_audio"


def _carries_format(params: Params) -> bool:
    form = params["response_format"]
    return isinstance(form, dict) and form.get("type") in ("text", "json_object", "json_schema")


def _carries_metadata(params: Params) -> bool:
    """Return whether the metadata is empty, or Anthropic's; OpenAI's are a stored answer's tags."""
    metadata = params["metadata"]
    return not metadata or (isinstance(metadata, dict) and "user_id" in metadata)


def _carries_top_p(params: Params) -> bool:
    """Return whether `top_p` can be sent: newer models refuse it beside a temperature."""
    temperature = params.get("temperature")
    return params["top_p"] == 1 or temperature is None or temperature >= 1


def _carries_effort(params: Params) -> bool:
    """Return whether the effort is known, and no sampling is asked that thinking forbids."""
    if params["reasoning_effort"] == "none":
        return True
    temperature, top_p = params.get("temperature"), params.get("top_p")
    if (temperature is not None and temperature < 1) or (top_p is not None and top_p < LEAST_TOP_P):
        return False
    return str(params["reasoning_effort"]) in EFFORTS


def _carries_stop(params: Params) -> bool:
    """Return whether each stop text has more than blanks, without which Anthropic refuses it."""
    stop = params["stop"]
    return all(text.strip() for text in ([stop] if isinstance(stop, str) else stop))


def _carries_tools(params: Params) -> bool:
    return not any(isinstance(tool, dict) and "custom" in tool for tool in _items(params["tools"]))


def _carries_choice(params: Params) -> bool:
    choice = params["tool_choice"]
    return not (isinstance(choice, dict) and choice.get("type") in ("allowed_tools", "custom"))


_AT_ANTHROPIC: Mapping[str, Callable[[Params], bool]] = {
    "metadata": _carries_metadata,
    "reasoning_effort": _carries_effort,
    "response_format": _carries_format,
    "stop": _carries_stop,
    "service_tier": lambda params: params["service_tier"] in TIERS,
    "tool_choice": _carries_choice,
    "tools": _carries_tools,
    "top_p": _carries_top_p,
}
"""Params that Anthropic's dialect can carry with some values only."""

NOTABLE = frozenset({*ONLY_OPENAI, *ONLY_ANTHROPIC, *_AT_ANTHROPIC})
"""Requests without messages and without any of these fit both dialects, and most have none."""

REMEDIES: Mapping[str, str] = {
    "params.function_call": "give it as params.tool_choice",
    "params.functions": "give them as params.tools",
    "params.metadata": 'Anthropic takes {"user_id": "..."}',
    "params.reasoning_effort": "give params.thinking or params.output_config",
    "params.n": "ask for samples (submit_many(samples=N), --samples, samples of a batch line)",
    "params.stop": "give texts that are not blank",
    "params.top_p": "give it or params.temperature, not both",
}
"""What to do at Anthropic in the place of a field that its dialect cannot carry."""


IN_RESPONSES: Mapping[str, str] = {
    "params.logprobs": "params.top_logprobs",
    "params.reasoning_effort": "params.reasoning",
    "params.response_format": "params.text",
    "params.verbosity": "params.text",
}
"""The params of chat completions that have another name in the form of Responses."""

_REMEDIES: Mapping[AskedForm, Mapping[str, str]] = {
    "openai": REMEDIES,
    "anthropic": anthropic_form.REMEDIES,
    "responses": responses_form.REMEDIES,
    "moderations": {},
}


def remedy_for(field: str, dialect: AskedForm) -> str:
    """Return what to do in the place of a field that the dialect of the model cannot carry."""
    return _REMEDIES[dialect].get(field, "leave it out")
