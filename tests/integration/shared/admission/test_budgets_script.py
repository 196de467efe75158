"""Budgets in the scripts: which jobs pass, wait or are refused, and which alerts are sent."""

import json
from collections.abc import Iterator

import pytest

from headgate.shared.admission.grant import Cheaper, Held, OverBudget, decode
from headgate.shared.broker import jobs, script
from tests.support.budgets import USD, Treasury, ticket
from tests.support.governor_model import Places
from tests.support.rig import BULK, STANDARD
from tests.support.servers import ValkeyServer


@pytest.fixture
def treasury(valkey: ValkeyServer) -> Iterator[Treasury]:
    with valkey.client(decode_responses=False) as client:
        broker = Treasury(client)
        broker.settle_down()
        yield broker


def test_a_thousand_jobs_on_ten_dollars_never_spend_a_cent_above_ten(treasury: Treasury) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=10 hard=1"})
    treasury.ask_with(ticket(USD // 10), *[f"j{n}" for n in range(1000)])
    first = treasury.holds(1000)
    assert len(first) == 100
    assert treasury.book("tenant/acme") == (0, 10 * USD)
    running, paid, refused = dict(first), 0, 0
    while running or refused < 1000 - paid:
        for job_id, grant in list(running.items())[:30]:
            assert treasury.pay(job_id, grant, USD // 40)
            paid += 1
            del running[job_id]
            treasury.ack(job_id)
        for job_id, found in treasury.grants(1000).items():
            if isinstance(found, Held):
                running[job_id] = found
            else:
                assert isinstance(found, OverBudget)
                refused += 1
                treasury.ack(job_id)
        spent, held = treasury.book("tenant/acme")
        assert spent + held <= 10 * USD
    assert treasury.book("tenant/acme") == (paid * USD // 40, 0)
    assert paid * USD // 40 > 9.9 * USD - USD // 10
    assert Places.of(treasury, [STANDARD]).faults == []


def test_who_waits_for_what_others_hold_goes_on_when_they_end(treasury: Treasury) -> None:
    treasury.budget({"global": "usd_per_month=1 hard=1"})
    treasury.ask_with(ticket(USD), "a", "b", "c")
    [(first, grant)] = treasury.holds().items()
    assert treasury.take() == []
    treasury.settle(first, grant, None)
    [(second, grant)] = treasury.holds().items()
    treasury.pay(second, grant, USD)
    [(third, refused)] = treasury.grants().items()
    assert isinstance(refused, OverBudget)
    month = treasury.periods()[1]
    told = (refused.scope, refused.period, refused.limit, refused.hard_stop)
    assert told == ("global", month, USD, USD)
    assert (refused.spent, refused.held, refused.upper_bound) == (USD, 0, USD)
    assert {first, second, third} == {"a", "b", "c"}


def test_holds_that_end_in_one_call_cost_what_each_has_cost(treasury: Treasury) -> None:
    treasury.budget({"global": "usd_per_day=9"})
    treasury.ask_with(ticket(USD), "cheap", "unknown", "unsent")
    grants = treasury.holds()
    cheap = ("cheap", grants["cheap"], (1, 1), USD // 4)
    unknown = ("unknown", grants["unknown"], (1, 1), None)
    unsent = ("unsent", grants["unsent"], None, None)
    assert treasury.pay_together(cheap, unknown, cheap, unsent) == [1, 1, 0, 1]
    assert treasury.book("global") == (USD // 4 + USD, 0)
    assert treasury.pay_together(cheap, unknown, unsent) == [0, 0, 0]
    assert treasury.book("global") == (USD // 4 + USD, 0)


def test_an_unknown_cost_counts_as_its_upper_bound(treasury: Treasury) -> None:
    treasury.budget({"global": "usd_per_day=9"})
    treasury.ask_with(ticket(USD), "died", "cut", "odd")
    grants = treasury.holds()
    treasury.settle_down()
    treasury.lapse("died")
    treasury.fetch(0, queues=())
    treasury.ack("cut")
    treasury.pay("odd", grants["odd"], None)
    assert treasury.book("global") == (3 * USD, 0)
    for job_id in ("cut", "odd"):
        assert not treasury.pay(job_id, grants[job_id], 5)
    assert treasury.book("global") == (3 * USD, 0)


def test_who_goes_back_before_anything_was_sent_costs_nothing(treasury: Treasury) -> None:
    """A message of the next release, or one that its worker has not begun when it stops."""
    treasury.budget({"global": "usd_per_day=9"})
    for unsent in (True, False):
        treasury.ask_with(ticket(USD), "a", "b", "c")
        assert len(treasury.grants(3)) == 3
        a, b, c = map(treasury.lease, "abc")
        assert script.run(
            treasury.client, jobs.restore(treasury.keys, leases=[a, b], unsent=unsent)
        )
        assert script.run(
            treasury.client, jobs.defer(treasury.keys, lease=c, wait_ms=0, unsent=unsent)
        )
        assert treasury.book("global") == (0 if unsent else 3 * USD, 0)


def test_a_budget_of_zero_spends_nothing(treasury: Treasury) -> None:
    treasury.budget({"tenant/*": "usd_per_day=0"})
    treasury.ask_with(ticket(1), "a")
    treasury.ask_with(ticket(0), "free")
    assert {i: type(g) for i, g in treasury.grants().items()} == {"a": OverBudget, "free": Held}


def test_a_price_that_is_missing_is_refused_where_a_budget_binds(treasury: Treasury) -> None:
    treasury.budget({"user/acme/ann": "usd_per_day=1"})
    treasury.ask_with(ticket(None, user="ann"), "bound")
    treasury.ask_with(ticket(None, user="bob"), "free")
    found = treasury.grants()
    bound = found["bound"]
    assert isinstance(bound, OverBudget)
    assert bound.upper_bound is None
    assert isinstance(found["free"], Held)


def test_jobs_of_low_priority_stop_at_the_soft_share_and_others_at_the_hard(
    treasury: Treasury,
) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=1"})
    treasury.at_least("tenant/acme", USD)
    treasury.ask_with(ticket(1, priority="bulk"), "b", queue=BULK)
    treasury.ask_with(ticket(1), "s")
    assert list(treasury.grants(queues=(STANDARD, BULK))) == ["s"]
    treasury.override("tenant/acme", "usd_per_day=2")
    assert list(treasury.grants(queues=(STANDARD, BULK))) == ["b"]


def test_at_the_soft_share_a_cheap_model_is_asked_where_the_budget_names_one(
    treasury: Treasury,
) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=1 at_soft=tiny"})
    treasury.at_least("tenant/acme", USD)
    treasury.ask_with(ticket(1, priority="bulk"), "b", queue=BULK)
    [grant] = treasury.grants(queues=[BULK]).values()
    assert grant == Cheaper("tiny")
    again = treasury.reserve("b", "b:1:1", ticket(1, priority="bulk", model="tiny"))
    assert isinstance(decode(str(again)), Held)


def test_a_change_of_a_budget_counts_for_what_is_held_already(treasury: Treasury) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=10"})
    treasury.ask_with(ticket(USD), *"abcd")
    first = treasury.holds(2)
    treasury.budget({"tenant/acme": "usd_per_day=1 hard=1"})
    assert treasury.grants() == {}
    for job_id, grant in first.items():
        treasury.pay(job_id, grant, USD // 2)
    assert treasury.book("tenant/acme") == (USD, 0)
    assert [type(grant) for grant in treasury.grants().values()] == [OverBudget] * 2


def test_nobody_spends_before_the_record_was_read(treasury: Treasury) -> None:
    treasury.budget({"tenant/*": "usd_per_day=1 hard=1"}, read=False)
    treasury.ask_with(ticket(USD), "a")
    assert treasury.take() == []
    assert treasury.client.hget(treasury.keys.budgets(), "wanted") == b"1"
    treasury.at_least("tenant/acme", USD)
    treasury.budget({"tenant/*": "usd_per_day=1 hard=1"})
    treasury.advance(300)
    assert [type(grant) for grant in treasury.grants().values()] == [OverBudget]


def test_on_a_redis_that_knows_no_budgets_nobody_spends(treasury: Treasury) -> None:
    treasury.ask_with(ticket(USD), "a")
    assert treasury.take() == []
    treasury.budget()
    treasury.advance(300)
    assert [grant.money for grant in treasury.holds().values()] == [""]


def test_each_share_is_alerted_once_and_again_for_another_amount(treasury: Treasury) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=10 alerts=0.5,1"})
    for spent in (4, 5, 6, 10, 11):
        treasury.at_least("tenant/acme", spent * USD)
        treasury.at_least("tenant/acme", spent * USD)
    told = [json.loads(raw) for raw in treasury.alerts()]
    assert [(one["share"], one["spent"]) for one in told] == [
        ("0.5", str(5 * USD)), ("1", str(10 * USD)),
    ]  # fmt: skip
    treasury.override("tenant/acme", "usd_per_day=20")
    treasury.at_least("tenant/acme", 12 * USD)
    assert json.loads(treasury.alerts()[-1])["budget"] == str(20 * USD)
    assert len({json.loads(raw)["id"] for raw in treasury.alerts()}) == 3


def test_a_budget_whose_hard_stop_has_refused_a_job_is_alerted_as_spent(
    treasury: Treasury,
) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=10 hard=1"})
    treasury.ask_with(ticket(11 * USD), "large")
    treasury.grants()
    assert treasury.alerts() == []
    treasury.at_least("tenant/acme", 95 * USD // 10)
    treasury.ask_with(ticket(USD), "small")
    treasury.grants()
    assert [json.loads(raw)["share"] for raw in treasury.alerts()] == ["0.8", "0.9", "1"]


def test_every_key_of_money_has_a_lifetime(treasury: Treasury) -> None:
    treasury.budget({"tenant/acme": "usd_per_day=1 usd_per_month=9"})
    treasury.ask_with(ticket(USD), "a")
    treasury.grants()
    treasury.at_least("tenant/acme", USD)
    names = [*treasury._names("headgate:budget:*"), treasury.keys.alerts()]
    assert len(names) == 5
    assert all(treasury.client.pttl(name) > 0 for name in names)
