"""Capabilities: what a request needs of its model, and which models have it. Pure.

`lacks(model, needs_of(request))` is the one check, for submit, routing and fallback chains.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens as estimate
from headgate.shared.job.blocks import all_blocks
from headgate.shared.job.request import AskedForm, Request
from headgate.shared.responses.chat_form import chat_request, readable
from headgate.shared.routing.dialects import NOTABLE, beyond_anthropic, beyond_openai

#: Types of parts, of both vendors, that only a model with vision can read.
_IMAGES = frozenset({"image_url", "image", "input_image"})


class Needs(NamedTuple):
    """What a request needs of its model.

    `input_tokens` is an estimate; `output_tokens` is what the request asks for, or 0.
    `beyond_anthropic` and `beyond_openai` name the first field that this dialect cannot carry.
    `dialect` is that of the request. `provider` is the only one that may answer, or empty.
    """

    input_tokens: int
    output_tokens: int = 0
    vision: bool = False
    tools: bool = False
    json: bool = False
    beyond_anthropic: str = ""
    beyond_openai: str = ""
    dialect: AskedForm = "openai"
    provider: str = ""

    def of(self, first: Model) -> Needs:
        """Return the needs of a request for this model and its fallbacks.

        A model of OpenAI's dialect gets every field of OpenAI's form as it is, and so do its
        fallbacks of that dialect.
        """
        if not self.beyond_openai or self.dialect != "openai" or first.dialect == "anthropic":
            return self
        return self._replace(beyond_openai="")

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The catalog's names of the capabilities that a model must have."""
        return tuple(name for name in ("vision", "tools", "json") if getattr(self, name))


def needs_of(request: Request, input_tokens: int | None = None) -> Needs:
    """Return what the request needs; `input_tokens` saves the estimate if it is known already."""
    needs = _needs_of(request, input_tokens)
    return needs if request.pinned is None else needs._replace(provider=request.pinned.provider)


def _needs_of(request: Request, input_tokens: int | None) -> Needs:
    params = request.params
    tokens = estimate.input_tokens(request) if input_tokens is None else input_tokens
    output_tokens = request.asked_tokens or 0
    if request.dialect == "responses":
        params = chat_request(request).params
        return Needs(
            tokens, output_tokens, has_images(request), bool(request.params.get("tools")),
            _wants_json(params.get("response_format")),
            beyond_anthropic(request), beyond_openai(request), request.dialect,
        )  # fmt: skip
    is_openais = request.dialect == "openai"
    if request.messages is None and is_openais and params.keys().isdisjoint(NOTABLE):
        return Needs(tokens, output_tokens)
    return Needs(
        tokens,
        output_tokens,
        request.messages is not None and has_images(request),
        bool(params.get("tools") or params.get("functions")),
        _wants_json(params.get("response_format") if is_openais else _format_of(params)),
        beyond_anthropic(request),
        beyond_openai(request),
        request.dialect,
    )


def has_images(request: Request) -> bool:
    """Return whether a message of the request, or the result of a tool in it, has an image."""
    blocks = all_blocks(readable(request).messages)
    return any(str(part.get("type")) in _IMAGES for part in blocks)


def _format_of(params: Mapping[str, Any]) -> object:
    """Return the format of the answer that a request in Anthropic's form asks for."""
    config = params.get("output_config")
    return (config.get("format") if isinstance(config, dict) else None) or params.get(
        "output_format"
    )


def _wants_json(form: object) -> bool:
    return isinstance(form, Mapping) and form.get("type") in ("json_object", "json_schema")


def lacks(model: Model, needs: Needs) -> str | None:
    """Return what the model lacks for this request, in words; None if it lacks nothing.

    The words are the name of a capability, a counterpart of a field that its dialect cannot carry,
    or a window for so many tokens.
    """
    if needs.provider and needs.provider != model.provider:
        return f"what {needs.provider} has on record"
    if needs.vision and "vision" not in model.capabilities:
        return "vision"
    if needs.tools and "tools" not in model.capabilities:
        return "tools"
    if needs.json and "json" not in model.capabilities:
        return "json"
    if beyond := beyond_dialect(model, needs):
        return f"a counterpart of {beyond}"
    if exceeds_window(model, needs):
        return f"a window for about {needs.input_tokens} tokens"
    return None


def beyond_dialect(model: Model, needs: Needs) -> str:
    """Return the first field that the model's dialect cannot carry; empty if there is none."""
    if needs.dialect == "responses" and model.has_responses:
        return ""
    return needs.beyond_anthropic if model.dialect == "anthropic" else needs.beyond_openai


def exceeds_window(model: Model, needs: Needs) -> bool:
    """Return whether the input does not fit in the model's window beside the output asked for."""
    if needs.input_tokens + model.max_output_tokens <= model.context_tokens:
        return False
    return estimate.exceeds_window(needs.input_tokens, model, reserved_tokens(model, needs))


def reserved_tokens(model: Model, needs: Needs) -> int:
    """Return how many tokens of the window are for the output; 0 where none were asked for."""
    return 0 if model.answer_kind != "text" else min(needs.output_tokens, model.max_output_tokens)


#: The field of a request that asks for each capability.
FIELDS: Mapping[str, str] = {
    "vision": "messages", "tools": "params.tools", "json": "params.response_format",
}  # fmt: skip


def field_of(capability: str, request: Request) -> str:
    """Return the field of the request that asks for the capability; empty if it is none."""
    if capability == "json" and request.dialect == "anthropic":
        return "params.output_config"
    if request.dialect == "responses":
        return {"vision": "input", "json": "params.text"}.get(
            capability, FIELDS.get(capability, "")
        )
    return FIELDS.get(capability, "")


def chain(
    request: Request, first: Model, catalog: Catalog, needs: Needs | None = None
) -> tuple[Model | StaticText, ...]:
    """Return the models to ask in turn: `first`, then its fallbacks that can answer the request.

    Fallbacks that lack a capability, or whose dialect cannot carry a field of the request, are left
    out, and with `same_provider` those of other providers. An embedding job has no fallback:
    vectors of different models cannot be compared, and neither can the scores of moderations. Nor
    has a job one that is pinned to a provider's key.
    """
    if request.answer_kind != "text" or request.fallback is False or request.pinned is not None:
        return (first,)
    whole = catalog.chain(first, request.fallback)
    if len(whole) == 1:
        return whole
    needs = (needs or needs_of(request)).of(first)
    if _all_can_answer(whole, request, needs):
        return whole
    return (first, *(other for other in whole[1:] if _can_answer(other, first, request, needs)))


def gaps(catalog: Catalog) -> list[str]:
    """Return a sentence for each capability of a model that none of its fallbacks has."""
    found = []
    for model in catalog.models.values():
        others = [one for one in catalog.chain(model)[1:] if isinstance(one, Model)]
        found += [
            f"{model.name} has {name}, and none of its fallbacks has it: a request that needs "
            f"{name} has no fallback"
            for name in FIELDS
            if others
            and name in model.capabilities
            and not any(name in one.capabilities for one in others)
        ]
    return found


def _all_can_answer(whole: tuple[Any, ...], request: Request, needs: Needs) -> bool:
    return not request.same_provider and all(
        isinstance(other, StaticText) or lacks(other, needs) is None for other in whole[1:]
    )


def _can_answer(other: Model | StaticText, first: Model, request: Request, needs: Needs) -> bool:
    if isinstance(other, StaticText):
        return True
    if request.same_provider and other.provider != first.provider:
        return False
    return lacks(other, needs) is None
