"""The limits and the budget of a gateway key bind the jobs that came with it, and no others."""

from collections.abc import Iterator

import pytest

from headgate.shared.admission.grant import Held, OverBudget
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs, script
from tests.support.budgets import USD, Treasury, ticket
from tests.support.governor_model import Places
from tests.support.rig import STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import TICKET

ONE, OTHER = "hgk_0123456789ab", "hgk_ba9876543210"


@pytest.fixture
def treasury(valkey: ValkeyServer) -> Iterator[Treasury]:
    with valkey.client(decode_responses=False) as client:
        broker = Treasury(client)
        broker.settle_down()
        yield broker


def test_a_ticket_carries_its_key() -> None:
    given = ticket(7, key_id=ONE, variant_of="gpt-4o", step=3, paid=True)
    assert Ticket.decode(given.encode()) == given
    assert "@0123456789AB" in given.encode()


def test_a_key_at_its_limit_holds_up_nobody_else(treasury: Treasury) -> None:
    treasury.override(f"key/{ONE}", "rpm=1")
    treasury.ask_with(ticket(None, key_id=ONE), "a1", "a2")
    treasury.ask_with(ticket(None, key_id=OTHER), "b1", "b2")
    treasury.ask_with(ticket(None), "c1")
    assert sorted(treasury.holds()) == ["a1", "b1", "b2", "c1"]
    assert treasury.take() == []
    assert Places.of(treasury, [STANDARD]).faults == []
    treasury.advance(60_000)
    assert list(treasury.holds()) == ["a2"]


def test_what_a_key_did_not_use_goes_back_to_it(treasury: Treasury) -> None:
    treasury.override(f"key/{ONE}", "tpm=100000")
    treasury.ask_with(ticket(None, key_id=ONE), "a")
    [grant] = treasury.holds().values()
    assert "@0123456789AB" in grant.text
    before = treasury.bucket(f"key/{ONE}")["tpm.total"]
    treasury.settle("a", grant, (1, 1))
    assert treasury.bucket(f"key/{ONE}")["tpm.total"] == 2 < before


def test_a_call_at_a_time_with_a_key(treasury: Treasury) -> None:
    treasury.override(f"key/{ONE}", "concurrent=1")
    treasury.ask_with(ticket(None, key_id=ONE), "a", "b")
    [(first, grant)] = treasury.holds().items()
    assert treasury.take() == []
    treasury.settle(first, grant, (1, 1))
    assert len(treasury.holds()) == 1


def test_a_key_spends_its_budget_and_no_more(treasury: Treasury) -> None:
    treasury.budget({})
    treasury.override(f"key/{ONE}", "usd_per_day=1 hard=1")
    treasury.ask_with(ticket(USD // 2, key_id=ONE), "a", "b", "c")
    treasury.ask_with(ticket(USD // 2), "free")
    assert list(treasury.holds()) == ["free"]  # until somebody has read the ledger
    treasury.at_least(f"key/{ONE}", 0)
    for period in treasury.periods():
        treasury.client.hset(treasury.keys.sums_read(period), f"key/{ONE}", "1")
    treasury.resume("")
    running = treasury.holds()
    assert len(running) == 2
    assert treasury.book(f"key/{ONE}") == (0, USD)
    for job_id, grant in running.items():
        treasury.pay(job_id, grant, USD // 2)
    [refused] = treasury.grants().values()
    assert isinstance(refused, OverBudget)
    assert refused.scope == f"key/{ONE}"


def test_a_cancelled_job_leaves_the_queue_of_its_key(treasury: Treasury) -> None:
    treasury.override(f"key/{ONE}", "rpm=1")
    treasury.ask_with(ticket(None, key_id=ONE), "a", "b")
    [first] = treasury.holds()
    [left] = {"a", "b"} - {first}
    assert script.run(treasury.client, jobs.forget(treasury.keys, [left])) == 1
    assert Places.of(treasury, [STANDARD]).faults == []


def test_a_grant_of_a_key_is_held(treasury: Treasury) -> None:
    treasury.ask_with(ticket(None, key_id=ONE), "a")
    assert all(isinstance(grant, Held) for grant in treasury.grants().values())


@pytest.mark.parametrize("keys", [("",), (ONE,), ("", ONE)], ids=["none", "one", "both"])
def test_money_of_a_user_that_is_free_again_lets_the_jobs_of_all_its_keys_in(
    treasury: Treasury, keys: tuple[str, ...]
) -> None:
    scope = f"user/{TICKET.tenant}/ann"
    treasury.budget({scope: "usd_per_day=1 hard=1"})
    treasury.ask_with(ticket(USD, user="ann"), "first")
    [(first, grant)] = treasury.holds().items()
    for n, key in enumerate(keys):
        treasury.ask_with(ticket(USD // 4, user="ann", key_id=key), f"job{n}")
    assert treasury.take() == []
    treasury.pay(first, grant, 0)
    assert sorted(treasury.holds()) == [f"job{n}" for n in range(len(keys))]
