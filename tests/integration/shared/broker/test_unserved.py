"""Queues in which jobs wait and that no living worker serves."""

from collections.abc import Iterator

import pytest

from headgate.shared.broker import living, script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.living import LivingWorker, sign_text
from headgate.shared.broker.unserved import QueueLoads, queue_loads
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import Rooms

QUEUES = (URGENT, STANDARD, BULK)


@pytest.fixture
def hand(valkey: ValkeyServer) -> Iterator[Rooms]:
    with valkey.client(decode_responses=False) as client:
        yield Rooms(client, Keys("own:"))


def loads(hand: Rooms) -> QueueLoads:
    return script.run(hand.client, queue_loads(hand.keys, QUEUES))


def test_jobs_are_counted_in_lists_and_in_waiting_queues(hand: Rooms) -> None:
    hand.client.lpush(hand.keys.queue(STANDARD), "one", "two")
    hand.wait("a", "b", "c")
    hand.wait("d", queue="their.queue")
    found = loads(hand)
    assert found.waiting == {STANDARD: 5, "their.queue": 1}
    assert found.unserved == {STANDARD: 5, "their.queue": 1}
    hand.client.set(hand.keys.queue(BULK), "no list")
    assert loads(hand).waiting == found.waiting


def test_a_queue_is_served_while_a_worker_that_fetches_from_it_signs(hand: Rooms) -> None:
    hand.wait("a")
    hand.wait("b", queue=BULK)
    for name, queues in (("w1", [URGENT, STANDARD]), ("w2", [URGENT])):
        text = sign_text(3, queues, ["openai"])
        assert script.run(hand.client, living.sign(hand.keys, name, text)) == 1
    found = loads(hand)
    assert found.workers == [
        LivingWorker(3, frozenset((URGENT, STANDARD)), frozenset(("openai",))),
        LivingWorker(3, frozenset((URGENT,)), frozenset(("openai",))),
    ]
    assert found.unserved == {BULK: 1}
    for command in living.sign_off(hand.keys, "w1"):
        hand.client.execute_command(*command)  # type: ignore[no-untyped-call]
    assert loads(hand).unserved == {STANDARD: 1, BULK: 1}


def test_what_is_paused_misses_no_worker(hand: Rooms) -> None:
    hand.wait("a")
    hand.client.sadd(hand.keys.paused(), f"queue/{STANDARD}")
    assert loads(hand).unserved == {}


def test_a_worker_that_is_gone_leaves_no_sign(hand: Rooms) -> None:
    script.run(hand.client, living.sign(hand.keys, "gone", sign_text(0, [STANDARD], None)))
    hand.client.zadd(hand.keys.workers(), {"gone": 1})
    hand.client.delete(hand.keys.worker("gone"))
    assert loads(hand).workers == []
    script.run(hand.client, living.sign(hand.keys, "here", sign_text(0, [], None)))
    assert hand.client.zrange(hand.keys.workers(), 0, -1) == [b"here"]
    assert hand.client.pttl(hand.keys.workers()) > 0


@pytest.mark.parametrize(
    ("text", "worker"),
    [
        ("7", LivingWorker(7, None, None)),
        ("0\n", LivingWorker(0, frozenset(), None)),
        ("2\na b\n", LivingWorker(2, frozenset("ab"), frozenset())),
        ("rubbish", LivingWorker(0, None, None)),
    ],
)
def test_signs_of_all_releases_are_read(text: str, worker: LivingWorker) -> None:
    assert LivingWorker.decode(text) == worker
