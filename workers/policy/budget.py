"""What budgets mean for one job: whether an attempt may be made, and at which model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from headgate.shared.admission.grant import Grant
from headgate.shared.admission.scopes import unquoted
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens
from headgate.shared.cost.price import from_pico, text, to_pico
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request
from headgate.workers.errors import AttemptError
from headgate.workers.policy import fallback

SOFT_MS = 60_000
"""How long a job waits for a new period, or a raised budget, before it is looked at again."""


class OverBudget(AttemptError):
    """A budget has no money for the attempt, which was not made."""

    code = "budget_exceeded"
    retryable = False


def lacked_price(grant: Grant) -> bool:
    """Whether the job of this grant was kept out for want of a price."""
    return grant.money.endswith(":")


def over_budget(grant: Grant) -> AttemptError:
    """What the budget is that kept the job of this grant out, as the scripts told it."""
    scope, period, limit, hard, spent, held, worst = grant.money.split(":")
    kind, _, name = scope.partition("/")
    whose = f"{kind}/{unquoted(name)}" if name else kind
    day = "-".join(part for part in (period[:4], period[4:6], period[6:]) if part)
    budget = f"the budget of {whose} for {day} ({_usd(limit)} USD, hard stop at {_usd(hard)})"
    if not worst:
        return OverBudget(f"{budget} binds, and nobody can tell what {_unpriced(grant.model)}")
    return OverBudget(
        f"{budget} has no room for up to {_usd(worst)} USD of {grant.model}: "
        f"{_usd(spent)} are spent and {_usd(held)} held by jobs that run"
    )


def over_own(
    request: Request,
    model: Model,
    catalog: Catalog,
    cost_pico_usd: int | None,
    unknown_models: Iterable[str],
) -> AttemptError | None:
    """Why the job's own budget forbids this attempt, or None.

    `cost_pico_usd`: what it has cost so far. `unknown_models`: of attempts of which nobody knows
    whether they were billed; they count at their worst price.
    """
    if request.max_cost_usd is None:
        return None
    worst = upper_bound_pico_usd(request, model, catalog)
    if worst is None or cost_pico_usd is None:
        return OverBudget(f"max_cost_usd binds, and nobody can tell what {_unpriced(model.name)}")
    spent = cost_pico_usd
    for name in unknown_models:
        try:
            spent += upper_bound_pico_usd(request, catalog.model(name), catalog) or 0
        except InvalidRequest:  # the catalog has it no more
            spent += worst
    if spent + worst <= to_pico(Decimal(request.max_cost_usd)):
        return None
    so_far = f" after {_usd(spent)} so far" if spent else ""
    return OverBudget(
        f"up to {_usd(worst)} USD of {model.name}{so_far} are over max_cost_usd "
        f"({request.max_cost_usd})"
    )


def chain(
    request: Request,
    first: Model,
    catalog: Catalog,
    granted: Grant,
    input_tokens: Callable[[Model], int],
) -> Sequence[Model | StaticText] | None:
    """The models to ask in turn, or the one that a budget has asked in their place.

    None: the job has to wait, since that one cannot do it, or the caller wants no other model.
    """
    asked = fallback.chain(request, first, catalog)
    if granted.way == "cheaper":
        other = catalog.models.get(granted.money)
        return (other,) if other and _can_do(request, other, input_tokens) else None
    if granted.way == "held" and granted.model in _stand_ins(catalog):
        other = catalog.models[granted.model]
        if other not in asked:
            return (other,)
    return asked


def _stand_ins(catalog: Catalog) -> set[str | None]:
    found = {one.budget.at_soft for one in catalog.tenants.values()}
    found |= {one.budget.at_soft for one in catalog.users.values()} | {catalog.budget.at_soft}
    return found & catalog.models.keys()


def _can_do(request: Request, model: Model, input_tokens: Callable[[Model], int]) -> bool:
    if request.embeds or request.fallback is False:
        return False
    params, able = request.params, model.capabilities
    if params.get("tools") and "tools" not in able:
        return False
    if params.get("response_format") and "json" not in able:
        return False
    if "vision" not in able and _has_images(request):
        return False
    return not tokens.exceeds_window(input_tokens(model), model)


def _has_images(request: Request) -> bool:
    contents = (message.get("content") for message in request.messages or ())
    parts = (part for content in contents if isinstance(content, list) for part in content)
    return any(part.get("type") in ("image_url", "image", "input_image") for part in parts)


def _unpriced(model: str) -> str:
    return f'{model} may cost: add [prices."{model}"] to the catalog'


def _usd(pico: str | int) -> str:
    return text(from_pico(int(pico)))
