"""The server's clock jumps by an hour: leases, deferrals and claims go on as if it had not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.rig import STANDARD, Broker
from tests.support.servers import ValkeyServer

HOUR_MS = 3_600_000
LEASE_MS = 60_000


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Broker]:
    with valkey.client(decode_responses=False) as client:
        broker = Broker(client)
        broker.settle_down()
        yield broker


def jump(broker: Broker, ms: int) -> None:
    """The server's clock was set forward by `ms`: all that it wrote before is as much older."""
    marks = (broker.keys.leases(), broker.keys.due())
    for key in marks:
        found: Any = broker.client.zrange(key, 0, -1, withscores=True)
        for member, score in found:
            broker.client.zadd(key, {member: score - ms})
    broker.client.hincrby(broker.keys.pulse(), "last", -ms)


def until_end(broker: Broker, key: str, job_id: str) -> float:
    """Milliseconds until the mark of this job."""
    score = broker.client.zscore(key, job_id)
    assert isinstance(score, float)
    return score - broker.now_ms()


def test_a_clock_set_back_holds_up_no_lease_and_no_deferral(broker: Broker) -> None:
    broker.send("held", "due")
    broker.take(owner="dead", lease_ms=LEASE_MS)
    broker.defer("due", 30_000, owner="dead")
    jump(broker, -HOUR_MS)
    assert broker.take(owner="b") == []
    assert 50_000 < until_end(broker, broker.keys.leases(), "held") <= LEASE_MS + 1_000
    assert 20_000 < until_end(broker, broker.keys.due(), "due") <= 31_000
    assert broker.present() == {"held", "due"}


def test_a_clock_set_back_takes_no_lease_from_a_living_worker(broker: Broker) -> None:
    broker.send("held")
    broker.take(owner="a")
    jump(broker, -HOUR_MS)
    assert broker.renew("held", owner="a").lost == []  # before anyone has seen the jump
    assert broker.take(owner="b") == []
    assert broker.renew("held", owner="a").lost == []
    broker.settle_down()
    assert broker.take(owner="b") == []
    broker.ack("held", owner="a")
    assert broker.is_empty()


def test_a_clock_set_forward_takes_no_lease_and_brings_the_deferred_at_once(
    broker: Broker,
) -> None:
    broker.send("held", "due")
    broker.take(owner="a")
    broker.defer("due", 30_000, owner="a")
    jump(broker, HOUR_MS)
    assert broker.take(owner="b") == ["due"]
    assert broker.renew("held", owner="a").lost == []
    broker.settle_down()
    assert broker.take(owner="b") == []
    assert sorted(broker.leased()) == ["due", "held"]


def test_a_clock_that_jumps_to_and_fro_loses_nothing(broker: Broker) -> None:
    ids = [f"j{n}" for n in range(20)]
    broker.send(*ids)
    broker.take(20, owner="a")
    for ms in (-HOUR_MS, 2 * HOUR_MS, -HOUR_MS, -5_000, 5_000):
        jump(broker, ms)
        assert broker.take(owner="b", queues=(STANDARD,)) == []
        assert broker.renew(*ids, owner="a").lost == []
    broker.ack(*ids, owner="a")
    assert broker.is_empty()


def test_a_worker_that_stood_still_takes_no_lease_again_that_the_server_has_not(
    broker: Broker,
) -> None:
    broker.send("s1")
    broker.take(owner="late")
    broker.lapse()
    assert broker.take(owner="b") == ["s1"]
    broker.ack("s1", owner="b")
    assert broker.renew("s1", owner="late", again=False).lost == ["s1"]
    assert broker.is_empty()
    assert broker.leased() == {}
