"""The upper bound of what one attempt can use and cost: budgets hold this much before it. Pure.

It is a bound, not an estimate: an English prompt has about a quarter of these tokens. Budgets get
the difference back as soon as the answer is there.
"""

from __future__ import annotations

from typing import Any

import orjson

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.price import pico_at, upper_bound_steps
from headgate.shared.cost.tokens import answers, output_ceiling
from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import readable
from headgate.shared.responses.state import has_hidden_input

MESSAGE_TOKENS = 8
"""The tokens around a message, with its role. OpenAI has 4 (cookbook, "How to count tokens")."""

FRAME_TOKENS = 64
"""The tokens around all messages, and those that our dialects add. The instruction to answer in
JSON, which we add for Anthropic, has 75 bytes and is counted with `response_format`."""

TOOL_PROMPT_TOKENS = 1_000
"""What a vendor adds before a prompt with tools or an answer format. Anthropic names 159 to 804
tokens by model ("Tool use", pricing). OpenAI adds a line per tool, which is shorter than the JSON
that is counted here."""

IMAGE_TOKENS = {"gpt-4o-mini": 48_169, "anthropic": 4_784, "": 24_600}
"""The most tokens of an image, by model or provider, from the vendors' vision guides. gpt-4o-mini:
2,833, and 5,667 for each of at most 8 tiles. OpenAI's newer models: at most 10,000 patches times at
most 2.46. Anthropic at high resolution: 4,784. Other vendors count as OpenAI's newer models."""


def input_bound(request: Request, model: Model) -> int:
    """Return the most input tokens that a vendor can count for the request.

    A prompt over the window, and a text to embed over it, is refused by the vendor and costs
    nothing.
    """
    if has_hidden_input(request):  # it counts as the whole window, as a file does
        return model.context_tokens
    if len(request.inputs) > 1:
        return FRAME_TOKENS + sum(min(size, model.context_tokens) for size in _sizes(request))
    return min(sent_bound(request, model), model.context_tokens)


def sent_bound(request: Request, model: Model) -> int:
    """Return the most tokens that can be in what is sent, whatever the model's window.

    A token has at least one byte of UTF-8, because vocabularies fall back to bytes. A file counts
    as the whole window, because it may hold any number of tokens.
    """
    if request.embeds:
        return sum(_sizes(request)) + FRAME_TOKENS
    request = readable(request)
    if request.prompt is not None:
        total = _bytes(request.prompt) + MESSAGE_TOKENS + FRAME_TOKENS
    else:
        total = FRAME_TOKENS
        for message in request.messages or ():
            total += MESSAGE_TOKENS + _content(message.get("content"), model)
            if len(message) > 2:  # more than role and content
                beside = {k: v for k, v in message.items() if k not in ("role", "content")}
                total += _json_bytes(beside)
    if request.params:
        for name in _PROMPTED.intersection(request.params):
            if value := request.params[name]:
                total += TOOL_PROMPT_TOKENS * (1 + _unwritten(name, value)) + _json_bytes(value)
    return total


def _unwritten(name: str, tools: object) -> int:
    """Return how many of the tools have a description that only Anthropic knows."""
    if name != "tools" or not isinstance(tools, list):
        return 0
    kinds = (str(tool.get("type")) for tool in tools if isinstance(tool, dict))
    return sum(kind.startswith(_BY_CALLER) for kind in kinds)


def _sizes(request: Request) -> list[int]:
    """Return the most tokens of each input of an embedding job or a moderation."""
    return [MESSAGE_TOKENS + _size(one) for one in request.inputs]


def _size(one: Any) -> int:
    if isinstance(one, str):
        return _bytes(one)
    return _json_bytes(one) if isinstance(one[0], dict) else len(one)


def output_bound(request: Request, model: Model) -> int:
    """Return the most output tokens that a vendor can count for the request.

    Each of the `n` answers may take as many as `max_tokens` and the model allow.
    """
    if request.answer_kind != "text":
        return 0
    each = output_ceiling(request.asked_tokens, model)
    if prediction := request.params.get("prediction"):  # its unused part is billed as output
        each += _json_bytes(prediction)
    return each * answers(request.params)


#: Params that become part of the prompt. A `prediction` is billed as output.
_PROMPTED = frozenset({"tools", "functions", "response_format", "output_config", "system"})


def upper_bound_pico_usd(request: Request, model: Model, catalog: Catalog) -> int | None:
    """Return the most that one attempt at this model can cost, in pico-USD.

    None if no price is known for the model or its service tier, or if the bill has no bound: with
    tools that the vendor runs itself, such as searches, and with audio as input or output.
    """
    params = request.params
    if params and runs_vendor_tools(params):
        return None
    if any(map(_has_audio, readable(request).messages or ())):
        return None
    steps = upper_bound_steps(
        model,
        catalog,
        _service_tier(params),
        params.get("inference_geo") == "us",
        _writes_for_an_hour(request),
    )
    if steps is None:
        return None
    return pico_at(steps, input_bound(request, model), output_bound(request, model))


def _service_tier(params: dict[str, Any]) -> str:
    """Return the service tier that the request asks for; empty for none."""
    if params.get("speed") == "fast":
        return "fast"
    asked = params.get("service_tier")
    return asked if isinstance(asked, str) else ""


_UNBOUNDED = frozenset({"web_search_options", "audio", "mcp_servers", "container", "fallbacks"})

#: Tools whose schema Anthropic knows, and that the caller runs: the first part of their types.
_BY_CALLER = ("bash_", "text_editor_", "computer_2", "memory_")

#: Types of tools that the caller runs: of OpenAI's chat completions, and of its Responses.
_BY_CALLER_AT_OPENAI = ("function", "custom", "local_shell", "apply_patch", "computer")


def runs_vendor_tools(params: dict[str, Any]) -> bool:
    """Return whether the vendor runs tools for the request, or its bill has no bound otherwise."""
    if any(params.get(name) for name in _UNBOUNDED):
        return True
    tools = params.get("tools")
    return isinstance(tools, list) and not all(map(_is_run_by_caller, tools))


def _has_audio(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(p.get("type") == "input_audio" for p in content)


def _is_run_by_caller(tool: object) -> bool:
    # OpenAI's forms have one of these types; Anthropic's has a schema.
    return isinstance(tool, dict) and (
        tool.get("type") in _BY_CALLER_AT_OPENAI
        or "input_schema" in tool
        or str(tool.get("type")).startswith(_BY_CALLER)
    )


def _writes_for_an_hour(request: Request) -> bool:
    """Return whether the request asks Anthropic to keep a part of the prompt for an hour."""
    params = request.params
    marked = [params[name] for name in ("system", "tools", "cache_control") if name in params]
    marked += (m["content"] for m in request.messages or () if isinstance(m.get("content"), list))
    return bool(marked) and _has_ttl_of_an_hour(marked)


def _has_ttl_of_an_hour(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("ttl") == "1h" or any(map(_has_ttl_of_an_hour, value.values()))
    return isinstance(value, list) and any(map(_has_ttl_of_an_hour, value))


def _content(content: object, model: Model) -> int:
    if isinstance(content, str):
        return _bytes(content)
    if not isinstance(content, list):
        return 0
    return sum(_part(part, model) for part in content)


def _part(part: object, model: Model) -> int:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image_url", "image", "input_image"):
        return _image_tokens(model)
    if kind == "document" and isinstance(part, dict) and _is_text(part.get("source")):
        inner = _content(part["source"].get("content"), model)
        return MESSAGE_TOKENS + _json_bytes(part) + inner
    if kind in ("file", "document", "container_upload"):
        return model.context_tokens
    if isinstance(part, dict) and kind == "tool_result" and isinstance(part.get("content"), list):
        return MESSAGE_TOKENS + _content(part["content"], model)
    return MESSAGE_TOKENS + _json_bytes(part)


def _is_text(source: object) -> bool:
    """Return whether a document is given as text or blocks, and not as a file."""
    return isinstance(source, dict) and source.get("type") in ("text", "content")


def _image_tokens(model: Model) -> int:
    listed = model.variant_of or model.provider_name.partition("-2024")[0]
    by_name = IMAGE_TOKENS.get(listed)
    return by_name or IMAGE_TOKENS.get(model.provider, IMAGE_TOKENS[""])


def _bytes(text: str) -> int:
    # Exact, because four bytes for each character would be far too many for most texts.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bytes(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except (TypeError, ValueError):
        return 6 * len(repr(value))
