"""Refuses at submit what no model, or not this one, can do: kind, window, capabilities."""

from __future__ import annotations

from headgate.shared.catalog import Catalog, Model
from headgate.shared.envelope import Request
from headgate.shared.errors import InvalidRequest
from headgate.shared.policy import estimate, needs


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
    wanted = needs.needs_of(request, tokens)
    if not wanted.capabilities:
        return
    if missing := needs.lacks(model, wanted):
        words = f"the model {model.name} {_remedy(missing, wanted, catalog)}"
        raise InvalidRequest(needs.FIELDS.get(missing, "model"), model.name, words)
    if isinstance(request.fallback, list) and request.fallback:
        lacking = [needs.lacks(catalog.model(name), wanted) for name in request.fallback]
        if all(lacking):
            words = f"each of these {_remedy(str(lacking[0]), wanted, catalog)}"
            raise InvalidRequest("fallback", request.fallback, words)


def _remedy(missing: str, wanted: needs.Needs, catalog: Catalog) -> str:
    others = catalog.models.values()
    can = (one.name for one in others if not one.embeds and needs.lacks(one, wanted) is None)
    remedy = f"ask one that has it, such as {next(can, 'none of this catalog')}"
    return f"lacks {missing} (capabilities in the catalog); {remedy}"
