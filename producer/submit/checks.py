"""Refuses at submit what no model, or not this one, can do: kind, window, capabilities."""

from __future__ import annotations

from decimal import Decimal

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost import tokens as estimate
from headgate.shared.cost.price import from_pico, text, to_pico
from headgate.shared.cost.tokens import output_ceiling
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request
from headgate.shared.routing import capabilities


def refuse_other_kind(field: str, model: Model, request: Request) -> None:
    """InvalidRequest when the one gives vectors and the other asks for text, or the reverse."""
    if model.embeds and not request.embeds:
        remedy = "this model embeds; give `input`, or name a model that answers"
    elif request.embeds and not model.embeds:
        remedy = "this model answers; give `prompt` or `messages`, or name a model that embeds"
    else:
        return
    raise InvalidRequest(field, model.name, remedy)


def refuse_too_long(request: Request, model: Model) -> int:
    """The estimate of the input; InvalidRequest when it cannot fit beside the output asked for.

    The estimate can be over the truth, so it has some slack; what was asked for counts whole.
    """
    tokens = estimate.input_tokens(request, model)
    params = request.params
    asked = params.get("max_completion_tokens") or params.get("max_tokens")
    reserved = estimate.output_ceiling(params, model) if asked and not model.embeds else 0
    if estimate.exceeds_window(tokens, model, reserved):
        and_output = f" with {reserved} kept for the answer" if reserved else ""
        raise InvalidRequest(
            "input" if request.embeds else "messages" if request.messages else "prompt",
            f"about {tokens} tokens",
            f"{model.name} takes {model.context_tokens} tokens{and_output}; shorten it",
            "context_length",
        )
    return tokens


def refuse_unable(request: Request, model: Model, catalog: Catalog, tokens: int) -> None:
    """InvalidRequest when the model, or all that shall stand in for it, lack what is needed."""
    if request.embeds or (not request.params and request.messages is None):
        return
    wanted = capabilities.needs_of(request, tokens)
    if not wanted.capabilities:
        return
    if missing := capabilities.lacks(model, wanted):
        words = f"the model {model.name} {_remedy(missing, wanted, catalog)}"
        raise InvalidRequest(capabilities.FIELDS.get(missing, "model"), model.name, words)
    if isinstance(request.fallback, list) and request.fallback:
        lacking = [capabilities.lacks(catalog.model(name), wanted) for name in request.fallback]
        if all(lacking):
            words = f"each of these {_remedy(str(lacking[0]), wanted, catalog)}"
            raise InvalidRequest("fallback", request.fallback, words)


def _remedy(missing: str, wanted: capabilities.Needs, catalog: Catalog) -> str:
    others = catalog.models.values()
    can = (one.name for one in others if not one.embeds and capabilities.lacks(one, wanted) is None)
    remedy = f"ask one that has it, such as {next(can, 'none of this catalog')}"
    return f"lacks {missing} (capabilities in the catalog); {remedy}"


def refuse_too_dear(request: Request, model: Model, catalog: Catalog) -> None:
    """An attempt at the model costs `max_cost_usd` at most; raises InvalidRequest if it may not.

    The error tells the most that it may cost, and the max_tokens that would fit.
    """
    most = request.max_cost_usd
    if most is None:
        return
    worst = upper_bound_pico_usd(request, model, catalog)
    if worst is None:
        remedy = f"nobody can tell what {model.name} may cost here; leave it out, "
        remedy += f'or add [prices."{model.name}"] to the catalog'
        raise InvalidRequest("max_cost_usd", most, remedy, "budget_exceeded")
    limit = to_pico(Decimal(most))
    if worst <= limit:
        return
    remedy = f"an attempt at {model.name} may cost up to {text(from_pico(worst))} USD; "
    fits = _max_tokens_within(limit, request, model, catalog)
    remedy += "give at least that, " if fits else "give at least that, or shorten the request"
    if fits:
        remedy += f"or params.max_tokens of at most {fits}"
    raise InvalidRequest("max_cost_usd", most, remedy, "budget_exceeded")


def _max_tokens_within(limit: int, request: Request, model: Model, catalog: Catalog) -> int:
    """The most `max_tokens` with which an attempt stays within the limit; 0 where none does."""
    if request.embeds:
        return 0
    own = {k: v for k, v in request.params.items() if k != "max_completion_tokens"}

    def fits(tokens: int) -> bool:
        asked = request.model_copy(update={"params": {**own, "max_tokens": tokens}})
        worst = upper_bound_pico_usd(asked, model, catalog)
        return worst is not None and worst <= limit

    low, high = 0, output_ceiling(request.params, model)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
