"""Whether a request would be let in, and what it would hold, without submitting it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from headgate.producer.admin import budgets
from headgate.producer.installation import Installation
from headgate.producer.submit import admission
from headgate.producer.submit.fields import RequestForm
from headgate.producer.submit.prepare import Submitter
from headgate.producer.waits.pools import load_of
from headgate.producer.waits.view import view
from headgate.shared.admission.scopes import GLOBAL, shown, tenant_scope, user_scope
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.shared.broker.queues import queue_of
from headgate.shared.cost.price import usd_text
from headgate.shared.job.request import Priority


@dataclass(frozen=True, slots=True)
class AdmissionCheck:
    """What would become of a request now. Nothing was queued, taken or counted.

    `let_in`: no limit and no budget of the caller stops it: a request with `on_limit="refuse"` is
    accepted. `refusal`: else which one stops it. `retry_after_s`: seconds until that limit lets it
    through; None if no moment is known. `model`, `provider`, `pool`, `queue`: where it would run;
    `tier`: the caller's. `input_tokens`, `output_tokens`: what it would hold of the pool's limits;
    `max_usd`: of budgets, None if a price is unknown. `starts_in_s`: about how long the pool lets
    it wait, the jobs that wait already not counted.
    """

    let_in: bool
    refusal: str | None
    retry_after_s: float | None
    model: str
    provider: str
    pool: str
    queue: str
    tier: str | None
    priority: Priority
    input_tokens: int
    output_tokens: int
    max_usd: str | None
    starts_in_s: float

    def as_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)


def check(at: Installation, submitter: Submitter, given: RequestForm) -> AdmissionCheck:
    """Return what would become of this request; raise InvalidRequest as `submit` would."""
    job = submitter.prepare(given)
    ticket, request = Ticket.decode(job.ticket), job.envelope.request
    refusal = admission.look(at, job)
    budget = next(_stopping(at, ticket), None)
    text = budget if refusal is None else str(refusal)
    return AdmissionCheck(
        let_in=text is None,
        refusal=text,
        retry_after_s=getattr(refusal, "retry_after_s", None),
        model=ticket.model,
        provider=ticket.pool.partition("/")[0],
        pool=ticket.pool,
        queue=queue_of(job.envelope),
        tier=ticket.tier or None,
        priority=request.priority,
        input_tokens=ticket.input_tokens,
        output_tokens=ticket.output_tokens,
        max_usd=usd_text(ticket.upper_bound_pico_usd),
        starts_in_s=_starts_in_s(at, ticket),
    )


def _stopping(at: Installation, ticket: Ticket) -> Iterator[str]:
    """Yield the budgets of the caller that would not let the job start now."""
    scopes = {GLOBAL, tenant_scope(ticket.tenant)}
    scopes |= {user_scope(ticket.tenant, ticket.user)} if ticket.user else set()
    names = set(map(shown, scopes))
    for row in budgets.report(at):
        if row.scope not in names:
            continue
        name, spent = f"the budget of {row.scope} for {row.period}", f"{row.spent_usd} of"
        if row.state == "spent":
            yield f"{name} is spent: {spent} {row.budget_usd} USD"
        elif row.state == "soft" and ticket.priority == "bulk":
            yield f"{name} is nearly spent, so bulk jobs wait: {spent} {row.budget_usd} USD"


def _starts_in_s(at: Installation, ticket: Ticket) -> float:
    seen = script.run(at.redis, view(at.keys, pools=[ticket.pool]))
    pool = seen.pools.get(ticket.pool)
    return 0.0 if pool is None else round(pool.wait_ms(load_of(ticket), seen.now_ms) / 1000, 3)
