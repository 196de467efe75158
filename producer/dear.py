"""Refuses a request whose own budget its first attempt may break."""

from __future__ import annotations

from decimal import Decimal

from headgate.shared.catalog import Catalog, Model
from headgate.shared.envelope import Request
from headgate.shared.errors import InvalidRequest
from headgate.shared.policy.estimate import output_ceiling
from headgate.shared.policy.worst import worst_pico_usd
from headgate.shared.prices import from_pico, text, to_pico


def refuse_too_dear(request: Request, model: Model, catalog: Catalog) -> None:
    """An attempt at the model costs `max_cost_usd` at most; raises InvalidRequest if it may not.

    The error tells the most that it may cost, and the max_tokens that would fit.
    """
    most = request.max_cost_usd
    if most is None:
        return
    worst = worst_pico_usd(request, model, catalog)
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
        worst = worst_pico_usd(asked, model, catalog)
        return worst is not None and worst <= limit

    low, high = 0, output_ceiling(request.params, model)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
