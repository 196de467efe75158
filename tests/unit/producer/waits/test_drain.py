"""How long waiting jobs take by the limits and budgets of their callers."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from headgate.producer.waits.callers import CallerFigures, period_end_ms
from headgate.producer.waits.drain import CallerJobs, drains, wait_for_money
from headgate.producer.waits.levels import Load
from headgate.shared.admission.scopes import quoted
from headgate.shared.job.waiting_for import duration
from tests.support.waiting_rooms import TICKET

NOON = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp() * 1000)
NOW = NOON
HOUR = 3600
DAY = "20261130"
MONTH = "202611"


def jobs(n: int, tenant: str = "acme", user: str = "u1", **fields: object) -> CallerJobs:
    ticket = replace(TICKET, tenant=tenant, user=user, **fields)  # type: ignore[arg-type]  # of Ticket
    load = Load(n, 100 * n, 400 * n)
    return CallerJobs(quoted(tenant), quoted(user), n, ticket, load, 1000.0 * n)


def callers(limits: dict[str, str], **others: object) -> CallerFigures:
    given = {"limits": limits, "overrides": {}, "periods": (DAY, MONTH), **others}
    return CallerFigures(NOW, **given)  # type: ignore[arg-type]  # fields of CallerFigures


def test_a_users_own_limit_binds_its_jobs() -> None:
    found = drains([jobs(1990)], callers({"user/acme/u1": "rpm=10"}))
    # 10 a minute; the full bucket holds a minute.
    assert found["acme"] == pytest.approx(1980 * 6)
    assert duration(found["acme"]) == "3 h 18 min"


def test_users_of_a_tier_have_a_bucket_each_and_the_longest_counts() -> None:
    some = [jobs(10, user="a", tier="free"), jobs(300, user="b", tier="free")]
    found = drains(some, callers({"tier/free": "rpm=60", "tier/free/gpt-4o-mini": "rpm=30"}))
    assert found["acme"] == pytest.approx((300 - 30) / 30 * 60)


def test_jobs_of_one_tenant_share_its_bucket_and_other_tenants_do_not() -> None:
    some = [jobs(100, user="a"), jobs(200, user="b"), jobs(1, tenant="b & c")]
    found = drains(some, callers({"tenant/*": "rpm=60"}))
    assert found["acme"] == pytest.approx(300 - 60)
    assert found[quoted("b & c")] == pytest.approx(0)


def test_limits_that_were_taken_at_submit_do_not_bind_again() -> None:
    found = drains([jobs(1000, paid=True)], callers({"user/acme/u1": "rpm=10"}))
    assert found.get("acme", 0.0) == 0


def test_what_a_bucket_owes_comes_on_top() -> None:
    buckets = {"user/acme/u1": {"rpm.level": "-10", "rpm.at": str(NOW)}}
    found = drains([jobs(10)], callers({"user/acme/u1": "rpm=60"}, buckets=buckets))
    assert found["acme"] == pytest.approx(20)


def test_after_a_soft_stop_bulk_jobs_wait_for_the_next_day_and_then_for_limits() -> None:
    budget = {"tenant/acme": "usd_per_day=1"}
    spent = {("tenant/acme", DAY): (1_012_000_000_000, 0)}
    binding = callers({"user/acme/u1": "rpm=10"}, budgets=budget, sums=spent)
    found = drains([jobs(1000, priority="bulk")], binding)
    assert found["acme"] == pytest.approx(12 * HOUR + 990 * 6)
    others = drains([jobs(1000)], binding)
    assert others["acme"] == pytest.approx(990 * 6), "jobs of other priorities go on"
    cheaper = callers({}, budgets={"tenant/acme": "usd_per_day=1 at_soft=gpt-4o-mini"}, sums=spent)
    assert drains([jobs(1000, priority="bulk")], cheaper).get("acme", 0.0) == 0


def test_money_for_several_days_takes_several_days() -> None:
    # 10 a day, 4 of today left, 27 wanted: 4 today, 10 tomorrow, 10 the day after, 3 on the third.
    wait_s, rest = wait_for_money(27, 10, 6, DAY, NOW)
    assert wait_s == 12 * HOUR + 2 * 24 * HOUR
    assert rest == pytest.approx(3 / 27)
    assert wait_for_money(4, 10, 6, DAY, NOW) == (0.0, 1.0)
    assert wait_for_money(0, 10, 12, DAY, NOW) == (12 * HOUR, 1.0), "no price is known"


def test_periods_end_at_midnight_and_with_the_month() -> None:
    assert period_end_ms(DAY) == NOON + 12 * HOUR * 1000
    assert period_end_ms(MONTH) == NOON + 12 * HOUR * 1000
    assert period_end_ms("202612") == int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
    assert period_end_ms("20261231") == int(datetime(2027, 1, 1, tzinfo=UTC).timestamp() * 1000)
