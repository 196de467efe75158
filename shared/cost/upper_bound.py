"""The most that one attempt can use and cost, told before it: budgets hold this much. Pure.

An upper bound, not an estimate: a prompt of English has a quarter of the tokens that this says.
Budgets get back what was not used as soon as the answer is there.
"""

from __future__ import annotations

from typing import Any

import orjson

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.price import worst_pico, worst_steps
from headgate.shared.cost.tokens import output_ceiling
from headgate.shared.job.request import Request

MESSAGE_TOKENS = 8
"""The marks of a message and its role; OpenAI's are 4 (cookbook, "How to count tokens")."""

FRAME_TOKENS = 64
"""The marks around all of it, and what a dialect adds: our word that only JSON is wanted is 75
bytes and is counted by its own."""

TOOL_PROMPT_TOKENS = 1_000
"""What a vendor puts before a prompt that has tools or a form for the answer. Anthropic tells 159
to 804 tokens by model ("Tool use", pricing); OpenAI a line for each tool, which is shorter than the
JSON that is counted here."""

IMAGE_TOKENS = {"gpt-4o-mini": 48_169, "anthropic": 4_784, "": 24_600}
"""The most that an image takes, by model or provider, as the vendors' vision guides tell it.
gpt-4o-mini: 2,833 and 5,667 for each of at most 8 tiles. OpenAI's newer ones: at most 10,000
patches, by 2.46 at most. Anthropic's of high resolution: 4,784. Others are taken as OpenAI's."""


def input_bound(request: Request, model: Model) -> int:
    """No vendor counts more input tokens than this for the request.

    A token is at least one byte of UTF-8, as vocabularies that fall back to bytes have it. Files
    may hold anything: they count as the whole window. A prompt over the window is
    refused and costs nothing.
    """
    if request.input is not None:
        texts = [request.input] if isinstance(request.input, str) else request.input
        total = sum(map(_bytes, texts)) + MESSAGE_TOKENS * len(texts) + FRAME_TOKENS
    elif request.prompt is not None:
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
                total += TOOL_PROMPT_TOKENS + _json_bytes(value)
    return min(total, model.context_tokens)


#: Params that become a part of the prompt. A `prediction` is billed as output.
_PROMPTED = frozenset({"tools", "functions", "response_format", "output_config", "system"})


def worst_pico_usd(request: Request, model: Model, catalog: Catalog) -> int | None:
    """The most that one attempt at this model can cost, in 1e-12 USD.

    None where no price is known, and where the bill has no bound: tools that the vendor runs itself
    (its searches), sound in or out, a service tier without a price.
    """
    params = request.params
    if (params and _is_boundless(params)) or any(map(_speaks, request.messages or ())):
        return None
    steps = worst_steps(
        model,
        catalog,
        _service_tier(params),
        params.get("inference_geo") == "us",
        _asks_for_hours(request),
    )
    if steps is None:
        return None
    output = 0 if request.embeds else output_ceiling(params, model)
    if params.get("prediction"):  # what of it the answer does not use is billed as output, too
        output += _json_bytes(params["prediction"])
    return worst_pico(steps, input_bound(request, model), output)


def _service_tier(params: dict[str, Any]) -> str:
    """The tier that is asked for; `auto` is a project's own choice, and none unless it says so."""
    if params.get("speed") == "fast":
        return "fast"
    asked = params.get("service_tier")
    return asked if isinstance(asked, str) else ""


_BOUNDLESS = frozenset({"web_search_options", "audio", "mcp_servers", "container"})


def _is_boundless(params: dict[str, Any]) -> bool:
    if any(params.get(name) for name in _BOUNDLESS):
        return True
    tools = params.get("tools")
    return isinstance(tools, list) and not all(map(_is_run_by_us, tools))


def _speaks(message: dict[str, Any]) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(p.get("type") == "input_audio" for p in content)


def _is_run_by_us(tool: object) -> bool:
    """A tool whose call comes back to the caller: a function of OpenAI's form, or a schema."""
    return isinstance(tool, dict) and (
        tool.get("type") in ("function", "custom") or "input_schema" in tool
    )


def _asks_for_hours(request: Request) -> bool:
    """Whether a mark in the request asks Anthropic to keep a part of the prompt for an hour."""
    params = request.params
    marked = [params[name] for name in ("system", "tools", "cache_control") if name in params]
    marked += (m["content"] for m in request.messages or () if isinstance(m.get("content"), list))
    return bool(marked) and _holds_hour(marked)


def _holds_hour(value: object) -> bool:
    if isinstance(value, dict):
        return value.get("ttl") == "1h" or any(map(_holds_hour, value.values()))
    return isinstance(value, list) and any(map(_holds_hour, value))


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
    if kind in ("file", "document", "container_upload"):
        return model.context_tokens
    if isinstance(part, dict) and kind == "tool_result" and isinstance(part.get("content"), list):
        return MESSAGE_TOKENS + _content(part["content"], model)
    return MESSAGE_TOKENS + _json_bytes(part)


def _image_tokens(model: Model) -> int:
    by_name = IMAGE_TOKENS.get(model.provider_name.partition("-2024")[0])
    return by_name or IMAGE_TOKENS.get(model.provider, IMAGE_TOKENS[""])


def _bytes(text: str) -> int:
    # Four a character where it is not ASCII would be far over for most texts.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_bytes(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except (TypeError, ValueError):
        return 6 * len(repr(value))
