"""Reads what forecasts by the callers' own limits need: their waiting jobs, buckets and budgets.

Of many callers, only the buckets and the sums of those are read that take longest: the others fill
in about the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from headgate.producer.installation import Installation
from headgate.producer.waits import drain
from headgate.producer.waits import view as waiting_view
from headgate.producer.waits.callers import CallerFigures
from headgate.producer.waits.drain import CallerJobs
from headgate.producer.waits.pools import WaitingPool, WaitingQueue
from headgate.producer.waits.view import Seen
from headgate.shared.admission.scopes import unquoted
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.shared.broker.script import fields_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.cost.price import price
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.result import Usage

MOST_READ = 200
"""Buckets, and budgets, of callers that are read."""

PICO = Decimal(10**12)


def jobs_of(at: Installation, pool: WaitingPool, tenant: str | None) -> list[CallerJobs]:
    """Return the waiting jobs of each user in the pool; of one tenant (quoted) if it is given."""
    found = []
    for one in pool.queues:
        cost, first = _mean_cost(one, at.catalog), 0
        while first >= 0:
            command = waiting_view.user_queues(at.keys, one.queue, pool.name, first)
            page = script.run(at.redis, command)
            found += [
                CallerJobs(
                    each.tenant, each.user, each.waiting, each.first or _stand_in(one, each),
                    one.mean.times(each.waiting), None if cost is None else cost * each.waiting,
                )
                for each in page.queues
                if tenant in (None, each.tenant)
            ]  # fmt: skip
            first = page.next_first
    return found


def _stand_in(queue: WaitingQueue, of: waiting_view.UserQueue) -> Ticket:
    """Return a ticket for jobs whose own cannot be read."""
    known = next((ticket for ticket, _ in queue.sample), None)
    if known is not None:
        return replace(known, tenant=unquoted(of.tenant), user=unquoted(of.user), tier="")
    return Ticket(
        queue.pool, "", "standard", unquoted(of.tenant), unquoted(of.user), "", "o", 0, 0, 0, 0
    )


def _mean_cost(queue: WaitingQueue, catalog: Catalog) -> float | None:
    """Return what a job of this waiting queue costs in the mean, in pico-USD; None if unknown."""
    found = [_cost(ticket, output, catalog) for ticket, output in queue.sample]
    known = [one for one in found if one is not None]
    return sum(known) / len(known) if known else None


def _cost(ticket: Ticket, output_tokens: int, catalog: Catalog) -> float | None:
    try:
        model = catalog.model(f"{ticket.pool.partition('/')[0]}/{ticket.model}")
    except InvalidRequest:
        return None
    usage = Usage(input_tokens=ticket.input_tokens, output_tokens=output_tokens)
    usd = price(usage, model, catalog)
    return None if usd is None else float(usd * PICO)


def read_callers(at: Installation, view: Seen, jobs: Sequence[CallerJobs]) -> CallerFigures:
    """Return what binds the callers of these jobs."""
    with at.redis.pipeline(transaction=False) as pipe:
        for key in (at.keys.limits(), at.keys.overrides(), at.keys.budgets()):
            pipe.hgetall(key)
        limits, overrides, budgets = map(fields_of, pipe.execute())
    day = datetime.fromtimestamp(view.now_ms / 1000, UTC)
    callers = CallerFigures(
        view.now_ms, limits, overrides, budgets, periods=(f"{day:%Y%m%d}", f"{day:%Y%m}")
    )
    buckets = _read_buckets(at, drain.largest(drain.buckets_of(jobs, callers), MOST_READ))
    scopes = list(drain.budget_scopes(jobs, callers))[:MOST_READ]
    return replace(callers, buckets=buckets, sums=_read_sums(at, scopes, callers.periods))


def _read_buckets(at: Installation, names: Sequence[str]) -> dict[str, Mapping[str, str]]:
    with at.redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hgetall(at.keys.bucket(name))
        found = pipe.execute()
    return {name: fields_of(fields) for name, fields in zip(names, found, strict=True)}


def _read_sums(
    at: Installation, scopes: Sequence[str], periods: Sequence[str]
) -> dict[tuple[str, str], tuple[int, int]]:
    places = [(scope, period) for scope in scopes for period in periods]
    with at.redis.pipeline(transaction=False) as pipe:
        for scope, period in places:
            pipe.hmget(at.keys.budget(scope, period), "spent", "held")
        found: list[Any] = pipe.execute()
    return {
        place: (max(0, int(spent or 0)), max(0, int(held or 0)))
        for place, (spent, held) in zip(places, found, strict=True)
    }
