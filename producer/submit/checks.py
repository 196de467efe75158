"""Refuse at submit what no model, or not this model, can do: kind, length, capabilities, price."""

from __future__ import annotations

from decimal import Decimal

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.price import to_pico, usd_text
from headgate.shared.cost.tokens import output_ceiling
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request
from headgate.shared.job.request_checks import misspelt_param
from headgate.shared.job.responses_checks import OF_CHAT, OF_RESPONSES, length_param
from headgate.shared.routing.capabilities import (
    Needs,
    beyond_dialect,
    exceeds_window,
    field_of,
    lacks,
    reserved_tokens,
)
from headgate.shared.routing.dialects import remedy_for
from headgate.shared.webhook_target import AllowedTargets, why_forbidden


def prompt_field(request: Request) -> str:
    """Return the name of the field that holds the words of the request."""
    names = ("input", "messages", "prompt")
    return next((name for name in names if getattr(request, name) is not None), "prompt")


def refuse_misspelt_params(request: Request) -> None:
    """Raise InvalidRequest for a param whose name is surely a slip, with the name that is meant.

    Workers do not check this, so that a job on record is never refused by a later release.
    """
    if request.dialect == "responses":
        for name in OF_CHAT.keys() & request.params.keys():
            remedy = f"the dialect responses has no such param; {OF_CHAT[name]}"
            raise InvalidRequest(f"params.{name}", request.params[name], remedy)
    for name, value in request.params.items():
        if request.dialect == "responses" and name in OF_RESPONSES:
            continue
        if meant := misspelt_param(name):
            remedy = f"no vendor has this param; did you mean params.{meant}?"
            raise InvalidRequest(f"params.{name}", value, remedy)


def refuse_forbidden_webhook(url: str | None, allowed: AllowedTargets) -> None:
    """Raise InvalidRequest for a webhook that no worker may call.

    A host name passes: what counts is the address that it has when the webhook is called.
    """
    why = None if url is None else why_forbidden(url, allowed)
    if why is not None:
        raise InvalidRequest("webhook_url", url, why)


def refuse_other_kind(field: str, model: Model, request: Request) -> None:
    """Raise InvalidRequest if the model answers with something else than the request asks for.

    Or if the request is pinned to another provider.
    """
    kinds = request.answer_kind, model.answer_kind
    if request.pinned is not None and request.pinned.provider != model.provider:
        remedy = f"the job is pinned to {request.pinned.provider}; name a model of it"
        raise InvalidRequest(field, model.name, remedy)
    if kinds[0] == kinds[1]:
        return
    remedy = _OTHER_KIND.get(kinds) or (
        f"this model answers with {kinds[1]}, and the request asks for {kinds[0]}; "
        'moderations have dialect "moderations" and a model such as omni-moderation-latest'
    )
    raise InvalidRequest(field, model.name, remedy)


_OTHER_KIND = {
    ("text", "embeddings"): "this model embeds; give `input`, or name a model that answers",
    ("embeddings", "text"): "this model answers; give `prompt` or `messages`, or name a model "
    "that embeds",
}


def refuse_too_long(request: Request, model: Model, needs: Needs) -> None:
    """Raise InvalidRequest if the input does not fit in the window beside the output asked for.

    The input is an estimate that may be too high, so it has some slack. The output asked for counts
    in full.
    """
    if exceeds_window(model, needs):
        reserved = reserved_tokens(model, needs)
        and_output = f" with {reserved} reserved for the answer" if reserved else ""
        raise InvalidRequest(
            prompt_field(request),
            f"about {needs.input_tokens} tokens",
            f"{model.name} takes {model.context_tokens} tokens{and_output}; shorten it",
            "context_length",
        )


def refuse_unable(request: Request, model: Model, catalog: Catalog, needs: Needs) -> None:
    """Raise InvalidRequest if the model, or every model of `fallback`, lacks a capability."""
    if request.answer_kind != "text":
        return
    needs = needs.of(model)
    if beyond := beyond_dialect(model, needs):
        remedy = f"{model.name} has nothing like it; "
        remedy += f"{remedy_for(beyond, request.dialect)}, or name a model of "
        remedy += _CARRIERS[request.dialect]
        raise InvalidRequest(beyond, model.name, remedy)
    if not (needs.capabilities or needs.beyond_anthropic or needs.beyond_openai):
        return
    if missing := lacks(model, needs):
        remedy = f"the model {model.name} {_remedy(missing, needs, catalog)}"
        raise InvalidRequest(field_of(missing, request) or "model", model.name, remedy)
    if isinstance(request.fallback, list) and request.fallback:
        lacking = [lacks(catalog.model(name), needs) for name in request.fallback]
        if all(lacking):
            remedy = f"each of these {_remedy(str(lacking[0]), needs, catalog)}"
            raise InvalidRequest("fallback", request.fallback, remedy)


_CARRIERS = {
    "openai": "OpenAI's dialect",
    "anthropic": "Anthropic's dialect",
    "responses": "a provider that has Responses, such as openai/gpt-4o-mini",
}
"""The models that carry every field of a form, as an error names them."""


def _remedy(missing: str, needs: Needs, catalog: Catalog) -> str:
    others = catalog.models.values()
    suitable = (
        one.name for one in others if one.answer_kind == "text" and lacks(one, needs) is None
    )
    remedy = f"ask one that has it, such as {next(suitable, 'none of this catalog')}"
    return f"lacks {missing} (capabilities in the catalog); {remedy}"


def refuse_too_expensive(request: Request, model: Model, catalog: Catalog) -> None:
    """Raise InvalidRequest if an attempt at the model may cost more than `max_cost_usd`.

    The error names the highest possible cost, and the `max_tokens` that would fit.
    """
    limit_usd = request.max_cost_usd
    if limit_usd is None:
        return
    upper_bound = upper_bound_pico_usd(request, model, catalog)
    if upper_bound is None:
        remedy = f"the highest cost of {model.name} here is unknown; leave it out, "
        remedy += f'or add [prices."{model.name}"] to the catalog'
        raise InvalidRequest("max_cost_usd", limit_usd, remedy, "budget_exceeded")
    limit = to_pico(Decimal(limit_usd))
    if upper_bound <= limit:
        return
    remedy = f"an attempt at {model.name} may cost up to {usd_text(upper_bound)} USD; "
    fits = _max_tokens_within(limit, request, model, catalog)
    remedy += "give at least that, " if fits else "give at least that, or shorten the request"
    if fits:
        remedy += f"or params.{length_param(request.dialect)} of at most {fits}"
    raise InvalidRequest("max_cost_usd", limit_usd, remedy, "budget_exceeded")


def _max_tokens_within(limit_pico: int, request: Request, model: Model, catalog: Catalog) -> int:
    """Return the highest `max_tokens` with which an attempt stays within the limit; 0 if none."""
    if request.answer_kind != "text":
        return 0
    params = {k: v for k, v in request.params.items() if k != "max_completion_tokens"}
    name = length_param(request.dialect)

    def fits(tokens: int) -> bool:
        asked = request.model_copy(update={"params": {**params, name: tokens}})
        upper_bound = upper_bound_pico_usd(asked, model, catalog)
        return upper_bound is not None and upper_bound <= limit_pico

    low, high = 0, output_ceiling(request.asked_tokens, model)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
