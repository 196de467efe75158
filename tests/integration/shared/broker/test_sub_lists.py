"""Messages with a priority of Celery's: read in kombu's order, counted with their queue."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import lists_of
from headgate.shared.sub_lists import SubLists
from headgate.workers.maintenance import census
from tests.support.rig import BULK, STANDARD, Broker, message_of, stock_message
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import TICKET

OWN = SubLists(sep=":", steps=(0, 1, 2))


@pytest.fixture(params=[SubLists(), OWN], ids=["usual", "own"])
def broker(valkey: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with valkey.client(decode_responses=False) as client:
        broker = Broker(client, Keys("p:", request.param))
        broker.settle_down()
        yield broker


def push(broker: Broker, job_id: str, place: int, queue: str = STANDARD) -> None:
    """A message at the end of the sub-list at this place of the order."""
    broker.client.lpush(lists_of(broker.keys, queue)[place], message_of(job_id))


def take(broker: Broker, want: int = 10, **others: object) -> list[str]:
    endings = broker.keys.sub_lists.endings
    return broker.take(want, endings=endings, **others)


def test_the_lists_of_a_queue_are_read_in_kombus_order(broker: Broker) -> None:
    for place in (2, 1, 0):
        push(broker, f"a{place}", place)
        push(broker, f"b{place}", place)
    assert take(broker) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_the_most_urgent_queue_is_read_to_its_end_before_the_next(broker: Broker) -> None:
    push(broker, "bulk", 0, BULK)
    push(broker, "standard", 2)
    assert take(broker, queues=(STANDARD, BULK)) == ["standard", "bulk"]


def test_a_list_waits_until_those_before_it_are_empty(broker: Broker) -> None:
    push(broker, "late", 2)
    for n in range(3):
        push(broker, f"first{n}", 0)
    fetched = broker.fetch(2, endings=broker.keys.sub_lists.endings)
    assert [job.id for job in fetched.taken] == ["first0", "first1"]
    assert fetched.more
    assert fetched.listed
    push(broker, "first3", 0)
    assert take(broker, 2) == ["first2", "first3"]
    assert take(broker) == ["late"]
    assert not broker.fetch(endings=broker.keys.sub_lists.endings).listed


def test_without_the_endings_nothing_but_the_queue_itself_is_read(broker: Broker) -> None:
    push(broker, "late", 1)
    fetched = broker.fetch()
    assert (fetched.taken, fetched.listed) == ([], False)


def test_a_paused_queue_keeps_its_sub_lists(broker: Broker) -> None:
    push(broker, "late", 1)
    broker.client.sadd(broker.keys.paused(), f"queue/{STANDARD}")
    assert take(broker) == []
    broker.client.delete(broker.keys.paused())
    assert take(broker) == ["late"]


def test_a_job_that_comes_back_is_in_the_queue_where_every_release_finds_it(
    broker: Broker,
) -> None:
    for n, job_id in enumerate(("lapsed", "restored", "deferred")):
        push(broker, job_id, 1 + n % 2)
    assert sorted(take(broker)) == ["deferred", "lapsed", "restored"]
    broker.restore("restored")
    broker.defer("deferred", 60_000)
    broker.make_due()
    broker.settle_down()
    broker.lapse("lapsed")
    found = broker.fetch(owner="b").taken  # no endings: as a worker of the release before
    assert sorted(job.id for job in found) == ["deferred", "lapsed", "restored"]
    assert {job.queue for job in found} == {STANDARD}


def test_a_key_that_is_no_list_stops_no_other(broker: Broker) -> None:
    wrong = lists_of(broker.keys, STANDARD)[1]
    broker.client.set(wrong, "x")
    push(broker, "last", 2)
    fetched = broker.fetch(endings=broker.keys.sub_lists.endings)
    assert [job.id for job in fetched.taken] == ["last"]
    assert fetched.wrong == [wrong]


def test_a_large_message_of_a_stock_producer_is_refused_by_its_id(broker: Broker) -> None:
    message = stock_message("large-1", [[{"prompt": "x" * 2000}], {}, {}])
    raw = json.dumps({"body": message.pop("body"), **message})
    broker.client.lpush(lists_of(broker.keys, STANDARD)[2], raw)
    fetched = broker.fetch(max_bytes=1000, endings=broker.keys.sub_lists.endings)
    assert [(one.job_id, one.queue) for one in fetched.large] == [("large-1", STANDARD)]


def test_the_census_counts_all_lists_of_a_queue(broker: Broker) -> None:
    for place in range(3):
        push(broker, f"a{place}", place)
    counted = script.run(broker.client, census.count_jobs(broker.keys, [STANDARD, BULK]))
    assert (counted.queued, counted.placed) == (3, 3)


def test_a_job_of_low_priority_waits_behind_those_that_come_soon_after_it(broker: Broker) -> None:
    now_ms = broker.now_ms()
    for job_id, step, age_s in (
        ("low", 9, 0), ("middle", 3, 0), ("high", 0, 0), ("aged", 9, 1000),
    ):  # fmt: skip
        ticket = replace(TICKET, step=step, arrival_ms=now_ms - age_s * 1000)
        assert Ticket.decode(ticket.encode()) == ticket
        message = f'{{"hg":"{job_id}","at":"{ticket.encode()}","body":"x"}}'
        broker.client.lpush(broker.keys.queue(STANDARD), message)
    assert take(broker, 0) == []
    assert [take(broker, 1)[0] for _ in range(4)] == ["aged", "high", "middle", "low"]
