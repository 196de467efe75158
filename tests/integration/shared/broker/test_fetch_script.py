"""The scripts of fetching: leases with the messages, acks that count once, nobody's job lost."""

import json
from collections.abc import Iterator

import pytest

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import queues, script
from headgate.shared.broker.keys import Keys
from tests.support.rig import (
    BULK,
    LEASE_MS,
    STANDARD,
    URGENT,
    Broker,
    envelope,
    message_of,
    stock_message,
)
from tests.support.servers import ValkeyServer


@pytest.fixture(params=["", "other:"])
def broker(valkey: ValkeyServer, request: pytest.FixtureRequest) -> Iterator[Broker]:
    with valkey.client(decode_responses=False) as client:
        broker = Broker(client, Keys(request.param))
        broker.settle_down()
        yield broker
        names = [name.decode() for name in client.scan_iter()]
        assert all(name.startswith(request.param) for name in names), names


def test_jobs_come_in_the_order_of_the_queues_and_first_in_first_out_within_one(
    broker: Broker,
) -> None:
    broker.send("b1", "b2", queue=BULK)
    broker.send("s1", "s2")
    broker.send("u1", "u2", queue=URGENT)
    assert broker.take(queues=(URGENT, STANDARD, BULK)) == ["u1", "u2", "s1", "s2", "b1", "b2"]


def test_the_lease_is_written_in_the_step_that_takes_the_message(broker: Broker) -> None:
    broker.send("s1")
    before_ms = broker.now_ms()
    [taken] = broker.fetch(owner="w").taken
    assert (taken.id, taken.queue, taken.crashes) == ("s1", STANDARD, 0)
    assert taken.message == message_of("s1")
    assert broker.leased() == {"s1": "w"}
    assert broker.waiting() == []
    lease_ends = broker.client.zscore(broker.keys.leases(), "s1")
    assert lease_ends is not None
    assert before_ms + LEASE_MS <= lease_ends <= broker.now_ms() + LEASE_MS


@pytest.mark.parametrize("want", [0, 1, 7, 200, 201, 450])
def test_never_more_than_wanted(broker: Broker, want: int) -> None:
    broker.send(*(f"s{n}" for n in range(300)))
    broker.send(*(f"b{n}" for n in range(300)), queue=BULK)
    taken = broker.take(want, queues=(STANDARD, BULK))
    assert len(taken) == want
    assert len(broker.leased()) == want
    assert len(broker.waiting()) + len(broker.waiting(BULK)) == 600 - want


def test_what_is_kept_of_many_running_jobs_is_found_without_a_search(broker: Broker) -> None:
    """Redis would keep so few short fields in one text, and search through all of it."""
    broker.send(*(f"s{n}" for n in range(40)))
    assert len(broker.take(40)) == 40
    assert broker.client.object("encoding", broker.keys.owners()) == b"hashtable"
    assert broker.leased().keys() == {f"s{n}" for n in range(40)}


def test_more_is_told_and_a_token_left_where_a_queue_holds_more(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.send("b1", queue=BULK)
    broker.client.delete(broker.keys.wake(STANDARD), broker.keys.wake(BULK))
    fetched = broker.fetch(1, queues=(STANDARD, BULK))
    assert fetched.more
    assert broker.client.llen(broker.keys.wake(STANDARD)) == 1
    assert not broker.fetch(10, queues=(STANDARD, BULK)).more


def test_only_one_token_is_ever_kept(broker: Broker) -> None:
    for n in range(5):
        broker.send(f"s{n}")
    assert broker.client.llen(broker.keys.wake(STANDARD)) == 1


def test_only_the_owner_can_acknowledge(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="a")
    broker.ack("s1", owner="b")
    assert broker.leased() == {"s1": "a"}
    broker.ack("s1", owner="a")
    assert broker.is_empty()


def test_an_ack_that_is_sent_twice_counts_once(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.take()
    broker.ack("s1", "s1")
    broker.ack("s1")
    assert broker.leased() == {"s2": "a"}
    assert broker.present() == {"s2"}


def test_many_acks_go_in_one_call(broker: Broker) -> None:
    ids = [f"s{n}" for n in range(1700)]
    broker.send(*ids)
    assert broker.take(2000) == ids
    broker.ack(*ids)
    assert broker.is_empty()


def test_an_acked_job_can_be_sent_again(broker: Broker) -> None:
    broker.send("s1")
    broker.ack(*broker.take())
    assert broker.send("s1") == 1
    assert broker.take() == ["s1"]


def test_a_second_copy_of_a_leased_job_is_dropped_and_the_first_stays(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="a")
    broker.push(message_of("s1"))
    assert broker.take(owner="b") == []
    assert broker.leased() == {"s1": "a"}
    assert broker.waiting() == []


def test_a_second_copy_of_a_deferred_job_is_dropped_and_the_first_stays(broker: Broker) -> None:
    broker.send("s1")
    broker.take()
    assert broker.defer("s1", 60_000)
    broker.push(message_of("s1"))
    assert broker.take(owner="b") == []
    assert broker.due() == {"s1"}
    broker.make_due()
    assert broker.take(owner="b") == ["s1"]


def test_copies_do_not_count_towards_what_is_wanted(broker: Broker) -> None:
    broker.send("s1")
    broker.take()
    for _ in range(3):
        broker.push(message_of("s1"))
    broker.send("s2", "s3")
    assert broker.take(2) == ["s2", "s3"]


def test_lapsed_leases_return_to_the_head_in_order_with_their_crashes_counted(
    broker: Broker,
) -> None:
    broker.send("s1", "s2", "s3")
    broker.send("u1", queue=URGENT)
    broker.take(owner="dead", queues=(URGENT, STANDARD))
    broker.send("s4")
    broker.settle_down()
    broker.lapse("s1", "s2", "u1")
    fetched = broker.fetch(owner="b", queues=(URGENT, STANDARD))
    assert [(job.id, job.crashes) for job in fetched.taken] == [
        ("u1", 1), ("s1", 1), ("s2", 1), ("s4", 0),
    ]  # fmt: skip
    assert broker.leased()["s3"] == "dead"
    broker.ack("u1", "s1", "s2", owner="b")
    assert broker.crashes() == {}


def test_the_queue_of_a_lapsed_job_is_woken_though_the_worker_does_not_serve_it(
    broker: Broker,
) -> None:
    broker.send("s1")
    broker.take(owner="dead")
    broker.client.delete(broker.keys.wake(STANDARD))
    broker.lapse()
    assert broker.take(queues=(BULK,)) == []
    assert broker.waiting_ids() == ["s1"]
    assert broker.client.llen(broker.keys.wake(STANDARD)) == 1


@pytest.mark.parametrize("silent_ms", [LEASE_MS // 2, 10 * LEASE_MS, -5000])
def test_after_a_silence_of_the_server_nobody_loses_a_lease_before_the_grace(
    broker: Broker, silent_ms: int
) -> None:
    broker.send("s1")
    broker.take(owner="frozen")
    broker.lapse()
    broker.fall_silent(silent_ms)  # a negative silence: the clock was set back
    assert broker.take(owner="b") == []
    assert broker.renew("s1", owner="frozen").lost == []
    broker.settle_down()
    assert broker.take(owner="b") == []
    broker.lapse()
    assert broker.take(owner="b") == ["s1"]


def test_a_server_without_a_pulse_gives_grace_first(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="a")
    broker.lapse()
    broker.client.delete(broker.keys.pulse())
    assert broker.take(owner="b") == []


def test_deferred_jobs_return_to_the_head_when_they_are_due_and_not_before(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.take()
    before_ms = broker.now_ms()
    assert broker.defer("s1", 60_000)
    assert broker.defer("s2", 90_000)
    broker.send("s3")
    fetched = broker.fetch(0)
    assert fetched.next_due_ms is not None
    passed_ms = broker.now_ms() - before_ms + 1
    assert 60_000 - passed_ms <= fetched.next_due_ms <= 60_000
    broker.make_due("s1")
    assert broker.take() == ["s1", "s3"]
    assert broker.due() == {"s2"}
    assert broker.present() == {"s1", "s2", "s3"}


def test_a_job_that_came_so_far_as_to_be_deferred_has_no_crashes(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="dead")
    broker.lapse()
    broker.take()
    assert broker.crashes() == {"s1": 1}
    broker.defer("s1", 1000)
    assert broker.crashes() == {}


def test_without_deferred_jobs_none_is_due(broker: Broker) -> None:
    assert broker.fetch(0).next_due_ms is None


def test_a_job_is_deferred_once_and_only_by_its_owner(broker: Broker) -> None:
    broker.send("s1")
    broker.take()
    assert not broker.defer("s1", 10_000, owner="b")
    assert broker.defer("s1", 60_000)
    until = broker.client.zscore(broker.keys.due(), "s1")
    assert not broker.defer("s1", 10_000)
    assert broker.client.zscore(broker.keys.due(), "s1") == until
    broker.ack("s1")
    assert broker.due() == {"s1"}


def test_a_message_over_the_size_is_a_dead_letter_and_the_next_one_comes(broker: Broker) -> None:
    big = json.dumps({"hg": "big", "body": "x" * 2000}).encode()
    broker.push(big)
    broker.send("s1")
    assert broker.take(1, max_bytes=1000) == ["s1"]
    assert broker.dead() == [(STANDARD, "over 1000 bytes", big)]
    assert broker.leased() == {"s1": "a"}


def test_the_id_of_a_stock_message_is_read_from_its_headers(broker: Broker) -> None:
    raw = json.dumps(stock_message("stock-1")).encode()
    broker.push(raw)
    [taken] = broker.fetch().taken
    assert (taken.id, taken.message) == ("stock-1", raw)
    broker.push(raw)
    assert broker.take(owner="b") == []
    broker.ack("stock-1")
    assert broker.is_empty()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\x00\xff", b"null", b"[]", b"{}", b'{"headers":null}', b'{"headers":{"id":7}}',
        b'{"headers":{"id":""}}', b'{"headers":{"id":"' + b"x" * 129 + b'"}}', b"[" * 100_000,
        b'{"hg":"', b"9" * 5000,
    ],
    ids=range(12),
)  # fmt: skip
def test_garbage_gets_a_lease_of_its_own(broker: Broker, raw: bytes) -> None:
    broker.push(raw)
    broker.push(raw)
    broker.send("s1")
    fetched = broker.fetch()
    assert [job.message for job in fetched.taken] == [raw, raw, message_of("s1")]
    first, second, good = (job.id for job in fetched.taken)
    assert first[0] == second[0] == "!"
    assert first != second
    assert good == "s1"
    broker.ack(first, second, good)
    assert broker.is_empty()


def test_a_server_that_forgot_the_scripts_is_taught_them_again(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.client.script_flush()
    assert broker.take() == ["s1", "s2"]
    broker.client.script_flush()
    assert broker.renew("s1").lost == []
    broker.client.script_flush()
    assert broker.defer("s1", 1000)
    broker.client.script_flush()
    assert broker.restore("s2") == 1
    broker.client.script_flush()
    assert broker.send("s2", "s3") == 1


def test_send_puts_each_job_once_and_in_order(broker: Broker) -> None:
    assert broker.send("s1", "s2") == 2
    assert broker.send("s1", "s2", "s3", "s3") == 1
    assert broker.waiting_ids() == ["s1", "s2", "s3"]
    broker.take(1)
    assert broker.send("s1") == 0
    assert broker.send() == 0


def test_thousands_of_envelopes_are_sent_in_order_by_their_queues(broker: Broker) -> None:
    jobs = [envelope(priority=("bulk", "standard")[n % 2]) for n in range(2300)]
    pairs = [(job, job.encode()) for job in jobs]
    assert queues.send(broker.client, broker.keys, pairs) == 2300
    assert queues.send(broker.client, broker.keys, pairs) == 0
    assert broker.waiting_ids(BULK) == [job.id for job in jobs[0::2]]
    assert broker.waiting_ids(STANDARD) == [job.id for job in jobs[1::2]]


def test_renewal_lengthens_the_lease(broker: Broker) -> None:
    broker.send("s1")
    broker.take()
    broker.lapse()
    assert broker.renew("s1").lost == []
    broker.settle_down()
    assert broker.take(owner="b") == []


def test_renewal_tells_which_jobs_another_worker_has(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.take(owner="a")
    broker.lapse("s1")
    assert broker.take(owner="b") == ["s1"]
    renewed = broker.renew("s1", "s2", owner="a")
    assert (renewed.lost, renewed.cancelled) == (["s1"], [])
    assert broker.leased() == {"s1": "b", "s2": "a"}


def test_a_lease_that_the_server_lost_is_taken_again_and_shuts_out_a_second_copy(
    broker: Broker,
) -> None:
    broker.send("s1")
    broker.take(owner="a")
    broker.client.delete(*(k for k in broker.client.scan_iter() if b"pulse" not in k))
    assert broker.renew("s1", owner="a").lost == []
    assert broker.present() == {"s1"}
    broker.push(message_of("s1"))  # the sweep sent it again before the renewal
    assert broker.take(owner="b") == []
    broker.lapse()
    broker.settle_down()
    assert broker.take(owner="b") == ["s1"], "the copy stays, in case the worker dies now"


def test_renewal_tells_a_cancellation_until_the_job_is_acked(broker: Broker) -> None:
    broker.send("s1", "s2", "s3")
    broker.take()
    broker.client.zadd(broker.keys.cancels(), {"s2": broker.now_ms(), "other": broker.now_ms()})
    for _ in range(2):
        assert broker.renew("s1", "s2", "s3").cancelled == ["s2"]
    broker.ack("s2")
    assert broker.renew("s1", "s3").cancelled == []
    assert broker.client.zrange(broker.keys.cancels(), 0, -1) == [b"other"]


def test_a_cancelled_job_that_is_put_off_comes_back_at_once(broker: Broker) -> None:
    broker.send("s1", "s2")
    broker.take()
    broker.client.zadd(broker.keys.cancels(), {"s1": broker.now_ms()})
    assert broker.defer("s1", 60_000)
    assert broker.defer("s2", 60_000)
    assert [job.id for job in broker.fetch(want=2).taken] == ["s1"]


def test_the_end_of_an_old_lease_does_not_end_a_new_one_of_the_same_worker(broker: Broker) -> None:
    """A worker that was frozen past its lease fetches its own job again while it still runs."""
    broker.send("s1")
    broker.take()
    old = broker.lease("s1")
    broker.lapse()
    assert broker.take() == ["s1"]
    ack = broker_jobs.fetch(broker.keys, owner="a#x", lease_ms=1, want=0, queues=(), acked=[old])
    script.run(broker.client, ack)
    assert script.run(broker.client, broker_jobs.restore(broker.keys, leases=[old])) == 0
    assert not script.run(broker.client, broker_jobs.defer(broker.keys, lease=old, wait_ms=1))
    assert broker.leased() == {"s1": "a"}
    renewal = broker_jobs.renew(broker.keys, lease_ms=LEASE_MS, leases=[old])
    assert script.run(broker.client, renewal).lost == ["s1"]
    broker.ack("s1")
    assert broker.is_empty()


def test_no_more_is_taken_than_a_reply_may_hold_and_the_rest_keeps_its_place(
    broker: Broker,
) -> None:
    for n in range(9):
        broker.push(message_of(f"s{n}")[:-1] + b',"body":"' + b"x" * 1000 + b'"}')
    broker.send("u1", queue=URGENT)
    fetched = broker.fetch(100, queues=(URGENT, STANDARD), max_reply_bytes=2500)
    assert [job.id for job in fetched.taken] == ["u1", "s0", "s1", "s2"]
    assert fetched.more
    assert broker.waiting_ids() == [f"s{n}" for n in range(3, 9)]
    assert broker.take(100, max_reply_bytes=0) == []


def test_restored_jobs_are_at_the_head_in_the_order_given(broker: Broker) -> None:
    broker.send("s1", "s2", "s3")
    broker.take(3)
    broker.send("s4")
    assert broker.restore("s1", "s2", "s3") == 3
    assert broker.waiting_ids() == ["s1", "s2", "s3", "s4"]
    assert broker.crashes() == {}
    assert broker.restore("s1") == 0
    assert broker.leased() == {}
    assert broker.present() == {"s1", "s2", "s3", "s4"}


def test_nobody_can_restore_the_job_of_another_worker(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="a")
    assert broker.restore("s1", owner="b") == 0
    assert broker.leased() == {"s1": "a"}


def test_large_messages_in_a_row_neither_blow_a_reply_nor_block_the_others(broker: Broker) -> None:
    broker.push(json.dumps({"hg": "big", "body": "x" * 200_000}, separators=(",", ":")))
    broker.client.sadd(broker.keys.present(), "big")
    for n in range(9):
        broker.push(json.dumps({"hg": f"o{n}", "body": "x" * 5000}, separators=(",", ":")))
    broker.send("s1", queue=URGENT)
    broker.send("s2")
    first = broker.fetch(64, queues=(URGENT, STANDARD), max_bytes=1000)
    assert [job.id for job in first.taken] == ["s1"]
    assert len(first.large) == 4
    assert first.more, "the rest is left for the next call"
    assert "big" not in broker.present()
    found = [first.large[0].queue, first.large[0].size > 200_000]
    assert found == [STANDARD, True]
    for _ in range(3):
        broker.fetch(64, max_bytes=1000)
    assert len(broker.dead()) == 10
    assert broker.leased().keys() == {"s1", "s2"}
    assert broker.present() == {"s1", "s2"}


def test_a_large_message_of_a_running_job_leaves_that_one_alone(broker: Broker) -> None:
    broker.send("s1")
    broker.take()
    broker.push(b'{"hg":"s1","body":"' + b"x" * 2000 + b'"}')
    broker.take(max_bytes=1000)
    assert (broker.present(), broker.leased()) == ({"s1"}, {"s1": "a"})


def test_many_messages_under_the_limit_come_by_their_bytes(broker: Broker) -> None:
    for n in range(20):
        broker.push(json.dumps({"hg": f"m{n}", "body": "x" * 100_000}, separators=(",", ":")))
    sizes = []
    while taken := broker.fetch(64, max_reply_bytes=250_000).taken:
        sizes.append(sum(len(job.message) for job in taken))
    assert len(broker.leased()) == 20
    assert max(sizes) < 400_000


@pytest.mark.parametrize("place", ["queue", "wake"])
def test_a_key_of_the_wrong_type_is_told_and_the_other_queues_go_on(
    broker: Broker, place: str
) -> None:
    keys = broker.keys
    key = keys.queue(STANDARD) if place == "queue" else keys.wake(STANDARD)
    broker.send("s1", "s2", queue=BULK)
    broker.take(1, queues=(BULK,))
    broker.send("u1", queue=URGENT)
    broker.client.delete(key)
    broker.client.set(key, "somebody's")
    for queue in (URGENT, BULK):
        fetched = broker.fetch(1, queues=(STANDARD, queue))
        assert len(fetched.taken) == 1
        assert fetched.wrong == ([key] if place == "queue" else [])


def test_a_lapsed_job_whose_queue_is_no_list_waits_until_it_is_one(broker: Broker) -> None:
    broker.send("s1")
    broker.take(owner="dead")
    broker.client.set(broker.keys.queue(STANDARD), "somebody's")
    broker.lapse()
    broker.settle_down()
    fetched = broker.fetch(queues=(URGENT,))
    assert fetched.wrong == [broker.keys.queue(STANDARD)]
    assert broker.due() == {"s1"}
    broker.client.delete(broker.keys.queue(STANDARD))
    broker.make_due()
    assert broker.take() == ["s1"]
