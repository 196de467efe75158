"""The index of waiting queues: what a fetch looks at, in which order, and what it costs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from headgate.shared.admission.ticket import Ticket
from tests.support.governor_model import Governor, Places
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import TICKET

QUEUES = (URGENT, STANDARD, BULK)
HANDICAPS_MS = {URGENT: 0, STANDARD: 300_000, BULK: 900_000}
MANY = 300


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Governor]:
    with valkey.client(decode_responses=False) as client:
        broker = Governor(client)
        broker.settle_down()
        yield broker
        assert Places.of(broker, QUEUES).faults == []


def _of_pool(n: int, **others: Any) -> Ticket:
    return replace(TICKET, pool=f"openai/m{n}", model=f"m{n}", **others)


def _heal(broker: Governor) -> None:
    """The next fetch makes the index anew."""
    broker.client.hset(broker.keys.pulse(), "rooms", 0)


def _calls(broker: Governor) -> int:
    """How many commands one fetch sends that finds no job."""
    broker.client.hset(broker.keys.pulse(), "rooms", broker.now_ms())
    broker.client.config_resetstat()
    assert broker.take(10, queues=QUEUES) == []
    stats: Any = broker.client.info("commandstats")
    return sum(int(one["calls"]) for one in stats.values())


def test_jobs_of_many_pools_start_in_the_order_of_their_ranks(broker: Governor) -> None:
    chance = random.Random(7)  # noqa: S311  # nothing secret
    ranks: dict[str, int] = {}
    now_ms = broker.now_ms()
    for n in chance.sample(range(MANY), MANY):
        queue = chance.choice(QUEUES)
        arrival_ms = now_ms - chance.randrange(2_000_000)
        priority = queue.split(".")[1]
        ticket = _of_pool(n, arrival_ms=arrival_ms, priority=priority)
        broker.ask_with(ticket, f"j{n}", queue=queue)
        ranks[f"j{n}"] = arrival_ms + HANDICAPS_MS[queue]
    broker.client.sadd(broker.keys.paused(), *(f"pool/openai/m{n}" for n in range(MANY)))
    while broker.fetch(10, queues=QUEUES).more:
        pass
    assert broker.take(10, queues=QUEUES) == []
    for n in range(MANY):
        if n % 3:
            broker.client.srem(broker.keys.paused(), f"pool/openai/m{n}")
    broker.resume("")
    taken: list[str] = []
    while batch := broker.take(7, queues=QUEUES):
        taken += batch
    open_ones = [name for name in ranks if int(name[1:]) % 3]
    assert taken == sorted(open_ones, key=ranks.__getitem__)


def test_a_fetch_costs_the_same_however_many_pools_are_shut(broker: Governor) -> None:
    broker.limit(**{f"pool/openai/m{n}": "rpm=1" for n in range(MANY)})

    def shut(pools: range) -> None:
        for n in pools:
            broker.ask_with(_of_pool(n, arrival_ms=broker.now_ms()), f"a{n}", f"b{n}")
        while (found := broker.fetch(64)).taken or found.more:
            pass

    shut(range(1))
    few = _calls(broker)
    shut(range(1, MANY))
    assert _calls(broker) <= few + 2


def test_a_shut_pool_is_looked_at_when_an_urgent_job_enters(broker: Governor) -> None:
    broker.limit(**{"pool/openai/m0": "tpm=100 burst_s=60"})
    broker.ask_with(_of_pool(0, arrival_ms=broker.now_ms(), output_tokens=0), "first")
    large = _of_pool(0, arrival_ms=broker.now_ms(), priority="bulk", output_tokens=0)
    assert broker.take(1) == ["first"]
    broker.ask_with(large, "large", queue=BULK)
    assert broker.take(10, queues=QUEUES) == []
    small = replace(large, priority="interactive", input_tokens=0)
    broker.ask_with(small, "small", queue=URGENT)
    assert broker.take(10, queues=QUEUES) == ["small"]
    broker.advance(70_000)
    assert broker.take(10, queues=QUEUES) == ["large"]


def test_what_a_worker_of_the_release_before_left_out_is_found(broker: Governor) -> None:
    broker.ask_with(_of_pool(0, arrival_ms=broker.now_ms()), "one")
    broker.ask_with(_of_pool(1, arrival_ms=broker.now_ms() - 1000), "two")
    assert broker.fetch(0, queues=QUEUES).more
    # It enters jobs without the index: one room is missing, the other stands too late.
    broker.client.zrem(broker.keys.ready_queues(), f"{STANDARD} openai/m0")
    broker.client.zadd(broker.keys.ready_queues(), {f"{STANDARD} openai/m1": 4e12})
    _heal(broker)
    assert broker.take(1, queues=QUEUES) == ["two"]
    assert broker.take(1, queues=QUEUES) == ["one"]


def test_a_pool_that_opened_unnoticed_is_found(broker: Governor) -> None:
    broker.limit(**{"pool/openai/m0": "rpm=1"})
    broker.ask_with(_of_pool(0, arrival_ms=broker.now_ms()), "one", "two")
    assert broker.take(10) == ["one"]
    broker.client.hset(broker.keys.limits(), "pool/openai/m0", "rpm=600000")
    broker.fill_up("openai/m0")
    assert broker.take(10) == [], "nobody has said so"
    _heal(broker)
    assert broker.take(10) == ["two"]
