"""A job that is pinned to a key of its provider is served by it alone, and holds up no others."""

from collections.abc import Iterator

import pytest

from headgate.shared.admission.ticket import Ticket
from tests.support.budgets import Treasury, ticket
from tests.support.governor_model import Places
from tests.support.rig import STANDARD
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL


@pytest.fixture
def treasury(valkey: ValkeyServer) -> Iterator[Treasury]:
    with valkey.client(decode_responses=False) as client:
        broker = Treasury(client)
        broker.settle_down()
        broker.limit(**{"keys/openai": "n=3", f"pool/{POOL}": "concurrent=1"})
        yield broker


def test_a_ticket_carries_its_only_key() -> None:
    given = ticket(7, key_id="hgk_0123456789ab", variant_of="gpt-4o", step=3, pinned_key="key12")
    assert Ticket.decode(given.encode()) == given
    assert Ticket.decode(ticket(7).encode()).pinned_key == ""


def test_a_pinned_job_waits_for_its_key_while_others_go_on(treasury: Treasury) -> None:
    treasury.ask_with(ticket(None, pinned_key="key1"), "a1", "a2", "a3")
    treasury.ask_with(ticket(None), "b1", "b2", "b3")
    running = treasury.holds()
    assert [(one, running[one].key) for one in sorted(running) if one[0] == "a"] == [("a1", "key1")]
    assert sorted(running) == ["a1", "b1", "b2"]
    assert {running["b1"].key, running["b2"].key} == {"key0", "key2"}
    treasury.settle("a1", running["a1"], (1, 1))
    assert len(treasury.holds()) == 1  # whoever is first: key1 serves all
    treasury.advance(60_000)
    assert Places.of(treasury, [STANDARD]).faults == []
