"""Money: a budget's hard stop holds for all workers together, and what was spent is never lost."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import func, select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit
from tests.support.governor import KEYS, MODEL, Open, World, world

__all__ = ["world"]
pytestmark = pytest.mark.slow

PRICE = ("--price", f"{MODEL}:input=1000,output=2000")
CATALOG = f"""
[prices."{MODEL}"]
input = "1000"
output = "2000"

[budget]
usd_per_day = "10"
hard = 1.0
"""
"""An answer costs 2 cents, and may cost 11: some 500 of a thousand fit, 90 at once at most."""


def ends(here: World) -> Counter[str | None]:
    """How many jobs ended with which error; None: answered."""
    query = select(audit.c.error_code, func.count()).group_by(audit.c.error_code)
    with reading(here.engine) as connection:
        return Counter({row[0]: row[1] for row in connection.execute(query)})


def billed(here: World) -> Decimal:
    """What the provider's own bill says, in USD."""
    return Decimal(here.simulator.stats()["money"]["billed_usd"])


def spent(here: World) -> tuple[Decimal, int]:
    """What is spent of the budget of everything today in USD, and what is held in pico-USD."""
    [name] = [n for n in here.redis.scan_iter("headgate:budget:global:*") if len(str(n)) == 31]
    found: Any = here.redis.hmget(name, "spent", "held")
    return Decimal(found[0]).scaleb(-12), int(found[1] or 0)


def told(here: World) -> int:
    """How many alerts are in the workers' logs."""
    return sum(worker.log().count("the budget of global for") for worker in here.workers)


def test_a_thousand_parallel_jobs_never_spend_a_cent_above_the_budget(world: Open) -> None:
    here = world(*PRICE, "--latency-ms=50", catalog=CATALOG, workers=2)
    ids: list[str] = []
    for n in range(4):
        ids += here.submit(250, tenant=f"t{n}")
    here.until_ended(ids, within_s=60)
    bill, codes = billed(here), ends(here)
    assert set(codes) == {None, "budget_exceeded"}
    assert Decimal("9.8") < bill <= 10
    assert spent(here) == (bill, 0)
    with reading(here.engine) as connection:
        ledger = connection.scalar(select(func.sum(attempts.c.cost_pico_usd)))
    assert Decimal(int(ledger or 0)).scaleb(-12) == bill
    [row] = here.command("budgets", "--json").document
    assert (row["scope"], row["state"], row["from"]) == ("global", "open", "catalog")
    assert Decimal(row["spent_usd"]) == bill

    here.wait(lambda: told(here) == 3, "the alerts at 80, 90 and 100 %")
    here.wait(lambda: not here.redis.exists(KEYS.alerts()), "the last alert to be struck off")

    # Redis forgets everything: what was spent is read from the record before anybody spends more.
    here.redis.flushall()
    late = here.submit(20)
    here.until_ended(late, within_s=30)
    assert billed(here) <= 10
    assert spent(here)[0] >= bill


def test_an_absurd_usage_is_kept_as_reported_and_locks_out_nobody(world: Open) -> None:
    here = world(*PRICE, catalog=CATALOG)
    fault = "[[fault:usage:tokens=1000000000000]]"
    absurd = here.client.submit(f"{fault} Hello", model=MODEL, params={"max_tokens": 5})
    result = absurd.result(timeout_s=60)
    assert (result.status, result.usage.input_tokens) == ("succeeded", 10**12)
    assert result.cost_usd is None  # over what a column holds
    assert result.usage_note is not None
    assert "1000000000000 input tokens" in result.usage_note
    told_so = lambda: any("cannot be true" in worker.log() for worker in here.workers)  # noqa: E731
    here.wait(told_so, "the log to say so")
    assert not any("Hello" in worker.log() for worker in here.workers)
    counted = spent(here)
    assert 0 < counted[0] < Decimal("0.5")
    assert counted[1] == 0

    # Workers read the record again after Redis has forgotten everything.
    here.redis.flushall()
    ids = here.submit(20)
    here.until_ended(ids)
    assert set(ends(here)) == {None}
    assert counted[0] < spent(here)[0] < 2
