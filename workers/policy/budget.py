"""What budgets mean for one job: whether it may make an attempt, and at which model. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal

from headgate.shared.admission.grant import Cheaper, Grant, Held, OverBudget
from headgate.shared.admission.scopes import unquoted
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.price import to_pico, usd_text
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import Request
from headgate.shared.routing import capabilities
from headgate.workers.errors import AttemptError
from headgate.workers.policy import fallback
from headgate.workers.policy.fallback import Chain

SOFT_MS = 60_000
"""How long a job waits for a new period, or a raised budget, before it is looked at again."""


class BudgetExceeded(AttemptError):
    """A budget has no money for the attempt, so it was not made."""

    code = "budget_exceeded"
    retryable = False


class OwnBudgetExceeded(BudgetExceeded):
    """The job's own `max_cost_usd` forbids the attempt."""

    waiting_helps = False


def over_budget(grant: OverBudget) -> BudgetExceeded:
    """Return the error of a job that this budget keeps out."""
    kind, _, name = grant.scope.partition("/")
    whose = f"{kind}/{unquoted(name)}" if name else kind
    period = grant.period
    day = "-".join(part for part in (period[:4], period[4:6], period[6:]) if part)
    limits = f"({usd_text(grant.limit)} USD, hard stop at {usd_text(grant.hard_stop)})"
    budget = f"the budget of {whose} for {day} {limits}"
    if grant.upper_bound is None:
        return BudgetExceeded(f"{budget} is in force, but {_unpriced(grant.model)}")
    return BudgetExceeded(
        f"{budget} cannot cover up to {usd_text(grant.upper_bound)} USD for {grant.model}: "
        f"{usd_text(grant.spent)} are spent and {usd_text(grant.held)} held by running jobs"
    )


def over_own(
    request: Request,
    model: Model,
    catalog: Catalog,
    cost_pico_usd: int | None,
    unknown_models: Iterable[str],
    parts_pico_usd: int = 0,
) -> OwnBudgetExceeded | None:
    """Return why the job's own `max_cost_usd` forbids this attempt, or None.

    `cost_pico_usd`: what the job has cost so far; None: not known. `unknown_models`: the models of
    attempts of which nobody knows whether they were billed. They count at their upper bound.
    `parts_pico_usd`: what of the cost is of those, and counts in their upper bound already.
    """
    if request.max_cost_usd is None:
        return None
    bound = upper_bound_pico_usd(request, model, catalog)
    if bound is None or cost_pico_usd is None:
        return OwnBudgetExceeded(f"max_cost_usd is in force, but {_unpriced(model.name)}")
    spent = cost_pico_usd
    for name in unknown_models:
        try:
            spent += upper_bound_pico_usd(request, catalog.model(name), catalog) or 0
        except InvalidRequest:  # the catalog has it no more
            spent += bound
    spent = max(cost_pico_usd, spent - parts_pico_usd)
    if spent + bound <= to_pico(Decimal(request.max_cost_usd)):
        return None
    so_far = f" after {usd_text(spent)} so far" if spent else ""
    return OwnBudgetExceeded(
        f"up to {usd_text(bound)} USD for {model.name}{so_far} are over max_cost_usd "
        f"({request.max_cost_usd})"
    )


def chain(
    request: Request,
    first: Model,
    catalog: Catalog,
    grant: Grant,
    input_tokens: Callable[[Model], int],
) -> Chain | None:
    """Return the models to ask in turn, or the one that a budget wants in their place.

    None: the job has to wait, since that model cannot do what the request needs, or the caller
    wants no other model. `input_tokens` estimates the prompt in tokens of a model.
    """
    wanted = fallback.chain(request, first, catalog)
    if isinstance(grant, Cheaper):
        other = catalog.models.get(grant.model)
        can_do = other and _can_do(request, first, other, input_tokens)
        return (other,) if other and can_do else None
    if isinstance(grant, Held) and grant.model in _stand_ins(catalog):
        other = catalog.models[grant.model]
        if other not in wanted:
            return (other,)
    return wanted


def _stand_ins(catalog: Catalog) -> set[str | None]:
    found = {one.budget.at_soft for one in catalog.tenants.values()}
    found |= {one.budget.at_soft for one in catalog.users.values()} | {catalog.budget.at_soft}
    return found & catalog.models.keys()


def _can_do(
    request: Request, first: Model, other: Model, input_tokens: Callable[[Model], int]
) -> bool:
    if request.answer_kind != "text" or request.fallback is False or request.pinned is not None:
        return False
    needs = capabilities.needs_of(request, input_tokens(other)).of(first)
    return capabilities.lacks(other, needs) is None


def _unpriced(model: str) -> str:
    return f'the price of {model} is unknown: add [prices."{model}"] to the catalog'
