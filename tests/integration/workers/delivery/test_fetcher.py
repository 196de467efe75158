"""The fetcher over a real server: nothing lost, nothing twice, whatever happens to its line."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import queues, script
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.in_flight import AnswerRoom
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival
from headgate.workers.delivery.wakeup import Wakeup
from tests.support.budgets import USD, Treasury, ticket
from tests.support.child import wait_until
from tests.support.poison import DEAD, HARMLESS
from tests.support.rig import BULK, STANDARD, URGENT, Broker, envelope, stock_message
from tests.support.servers import ValkeyServer


class Worker:
    """A fetcher, and what it told its worker."""

    def __init__(
        self, url: str, owner: str = "w", *, slots: int = 100, lease_ms: int = 15_000,
        max_bytes: int = 1 << 30,
    ) -> None:  # fmt: skip
        self.arrived: list[Arrival] = []
        self.stopped: list[tuple[int, StopReason]] = []
        self.answers_at_once = False
        self.fetcher = Fetcher(
            Redis.from_url(url, socket_timeout=5),
            Wakeup(Redis.from_url(url), Keys()),
            Keys(),
            owner=owner,
            slots=slots,
            lease_ms=lease_ms,
            max_bytes=max_bytes,
            on_arrival=self._arrive,
            on_stop=lambda tag, reason: self.stopped.append((tag, reason)),
        )

    def _arrive(self, arrivals: list[Arrival]) -> None:
        self.arrived += arrivals
        if self.answers_at_once:
            for arrival in arrivals:
                self.fetcher.ack(arrival.tag)

    @property
    def ids(self) -> list[str]:
        return [arrival.id for arrival in self.arrived]


@pytest.fixture
def broker(valkey: ValkeyServer) -> Iterator[Broker]:
    with valkey.client(decode_responses=False) as client:
        yield Broker(client)


Start = Callable[..., Worker]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    workers: list[Worker] = []

    def start(
        server: ValkeyServer, owner: str = "w", *, serves: list[str] | None = None, **options: int
    ) -> Worker:
        worker = Worker(server.url, owner, **options)
        workers.append(worker)
        worker.fetcher.serve([URGENT, STANDARD, BULK] if serves is None else serves)
        return worker

    yield start
    for worker in workers:
        await worker.fetcher.close()


async def until(predicate: Callable[[], object], what: str, timeout_s: float = 15) -> None:
    await asyncio.to_thread(wait_until, predicate, timeout_s, what)


def put(broker: Broker, count: int, queue: str = STANDARD) -> list[str]:
    jobs = [envelope() for _ in range(count)]
    for job in jobs:
        broker.push(json.dumps(stock_message(job.id)), queue)
    return [job.id for job in jobs]


async def test_jobs_arrive_in_order_and_only_as_many_as_there_are_slots(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    ids = put(broker, 150)
    worker = start(valkey, slots=100)
    await until(lambda: len(worker.arrived) == 100, "100 jobs")
    assert worker.ids == ids[:100]
    for arrival in worker.arrived[:30]:
        worker.fetcher.ack(arrival.tag)
    await until(lambda: len(worker.arrived) == 130, "30 more")
    assert worker.ids == ids[:130]
    assert len(broker.leased()) == worker.fetcher.held == 100


async def test_no_more_jobs_come_than_there_is_memory_for(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    jobs = [envelope(prompt="x" * 100_000) for _ in range(30)]
    queues.send(broker.client, broker.keys, ((job, job.encode()) for job in jobs))
    worker = start(valkey, max_bytes=1_000_000)
    await until(lambda: len(worker.arrived) == 10, "a megabyte of jobs")
    worker.fetcher.ack(worker.arrived[0].tag)
    await until(lambda: len(worker.arrived) == 11, "one more")
    assert 9 <= worker.fetcher.held <= 10
    worker.answers_at_once = True
    for arrival in worker.arrived[1:]:
        worker.fetcher.ack(arrival.tag)
    await until(broker.is_empty, "all jobs to end")
    assert worker.ids == [job.id for job in jobs]
    # The server knows it before its answer is here.
    await until(lambda: worker.fetcher.leases.held_bytes == 0, "the last answer")


async def test_while_answers_take_the_room_no_job_is_fetched(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    worker = start(valkey, max_bytes=1_000_000)
    room = AnswerRoom(worker.fetcher.in_flight)
    room.hold(1_000_000)
    jobs = [envelope() for _ in range(3)]
    queues.send(broker.client, broker.keys, ((job, job.encode()) for job in jobs))
    await asyncio.sleep(2)
    assert worker.ids == []
    room.release()
    await until(lambda: worker.ids == [job.id for job in jobs], "the jobs")


async def test_an_idle_worker_is_woken_at_once(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    worker = start(valkey)
    await until(lambda: any(c["cmd"] == "blpop" for c in broker.client.client_list()), "idle")
    loop = asyncio.get_running_loop()
    began = loop.time()
    broker.send("unread-but-woken")
    await until(broker.dead, "the message to be met")
    assert loop.time() - began < 0.5
    assert worker.arrived == []


async def test_an_empty_list_of_queues_pauses_and_a_new_one_resumes(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    worker = start(valkey, serves=[])
    put(broker, 3)
    ids = put(broker, 2, URGENT)
    worker.fetcher.serve([URGENT])
    await until(lambda: len(worker.arrived) == 2, "the urgent ones")
    assert worker.ids == ids
    assert len(broker.waiting()) == 3


async def test_jobs_that_go_back_unbegun_have_spent_nothing_of_a_budget(
    valkey: ValkeyServer, start: Start
) -> None:
    with valkey.client(decode_responses=False) as client:
        treasury = Treasury(client)
        treasury.budget({"global": "usd_per_day=9"})
        jobs = [envelope() for _ in range(3)]
        priced = replace(ticket(USD), arrival_ms=treasury.now_ms()).encode()
        queues.send(client, treasury.keys, ((job, job.encode(), priced) for job in jobs))
        worker = start(valkey)
        await until(lambda: len(worker.arrived) == 3, "all jobs")
        assert treasury.book("global") == (0, 3 * USD)
        worker.fetcher.serve([])
        tags = [arrival.tag for arrival in worker.arrived]
        await worker.fetcher.leases.restore(tags[1:], unsent=True)
        assert treasury.book("global") == (0, USD)


async def test_two_workers_share_thousands_of_jobs_without_overlap(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    ids = put(broker, 3000)
    workers = [start(valkey, f"w{n}") for n in range(2)]
    for worker in workers:
        worker.answers_at_once = True
    await until(lambda: sum(len(worker.arrived) for worker in workers) >= 3000, "3000 jobs", 30)
    await until(broker.is_empty, "all to be acked", 30)
    assert sorted(workers[0].ids + workers[1].ids) == sorted(ids)


async def test_a_server_killed_and_restarted_delivers_nothing_twice_and_keeps_acks(
    valkey_factory: Callable[..., ValkeyServer], start: Start
) -> None:
    server = valkey_factory(appendonly=True)
    with server.client(decode_responses=False) as client:
        ids = put(Broker(client), 150)
    worker = start(server, slots=100)
    await until(lambda: len(worker.arrived) == 100, "100 jobs")
    await asyncio.to_thread(server.kill)
    for arrival in worker.arrived[:40]:
        worker.fetcher.ack(arrival.tag)  # while nobody can hear it
    await asyncio.to_thread(server.start)
    await until(lambda: len(worker.arrived) >= 140, "the next jobs")
    with server.client(decode_responses=False) as client:
        broker = Broker(client)
        assert broker.leased().keys() == set(ids[40:140])
        for arrival in worker.arrived[40:]:
            worker.fetcher.ack(arrival.tag)
        await until(lambda: len(worker.arrived) >= 150, "the last jobs")
        for arrival in worker.arrived[140:]:
            worker.fetcher.ack(arrival.tag)
        await until(broker.is_empty, "all acks")
    assert worker.ids == ids
    assert worker.stopped == []


async def test_a_frozen_server_costs_nobody_a_lease(
    valkey_factory: Callable[..., ValkeyServer], start: Start
) -> None:
    server = valkey_factory()
    with server.client(decode_responses=False) as client:
        broker = Broker(client)
        ids = put(broker, 20)
        worker = start(server, "holder", lease_ms=2500)
        await until(lambda: len(worker.arrived) == 20, "20 jobs")
        other = start(server, "other", lease_ms=2500)
        server.freeze()
        await asyncio.sleep(3)  # longer than the lease: that is the point
        server.thaw()
        before_ms = broker.now_ms()
        await until(lambda: broker.now_ms() > before_ms + 3000, "another lease")
        assert (other.ids, worker.stopped) == ([], [])
        assert broker.leased() == dict.fromkeys(ids, "holder")


@pytest.mark.parametrize("lease_ms", [1000, 3000])
async def test_jobs_of_a_dead_worker_come_to_an_idle_one_with_its_crash_counted(
    broker: Broker, valkey: ValkeyServer, start: Start, lease_ms: int
) -> None:
    [job_id] = put(broker, 1)
    broker.take(owner="dead", lease_ms=lease_ms)
    worker = start(valkey, lease_ms=lease_ms)
    await until(lambda: worker.arrived, "the job")
    assert (worker.ids[0], worker.arrived[0].crashes) == (job_id, 1)


async def test_an_ack_that_comes_while_acks_are_counted_does_not_stop_the_worker(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    """Celery's thread may add one at any moment; here it comes in the middle of the count."""
    worker = start(valkey, slots=2, lease_ms=60_000)
    await asyncio.to_thread(put, broker, 2)
    await until(lambda: len(worker.arrived) == 2, "both jobs")
    first, *later = [arrival.tag for arrival in worker.arrived]
    is_counting = False

    class Counted(int):
        def __hash__(self) -> int:
            if is_counting and later:
                worker.fetcher.ack(later.pop())
            return hash(int(self))

    worker.fetcher.ack(Counted(first))
    is_counting = True
    await until(broker.is_empty, "both to be acked")
    assert later == []
    await asyncio.to_thread(put, broker, 1)
    await until(lambda: len(worker.arrived) == 3, "the next job")


async def test_killed_connections_repeat_no_job(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    worker = start(valkey, slots=50, lease_ms=4000)  # jobs of a lost reply come after a lease
    worker.answers_at_once = True
    sent: list[str] = []
    for _ in range(20):
        sent += await asyncio.to_thread(put, broker, 200)
        broker.client.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: len(worker.arrived) >= 4000, "4000 jobs", 30)
    await until(broker.is_empty, "all to be acked")
    assert sorted(worker.ids) == sorted(sent)
    assert worker.stopped == []


async def test_closing_gives_everything_back_in_order_and_sends_the_acks(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    ids = put(broker, 60)
    worker = start(valkey, slots=50)
    await until(lambda: len(worker.arrived) == 50, "50 jobs")
    worker.fetcher.serve([])
    for arrival in worker.arrived[:10]:
        worker.fetcher.ack(arrival.tag)
    await worker.fetcher.close()
    assert broker.leased() == {}
    assert broker.crashes() == {}
    waiting = [json.loads(raw)["headers"]["id"] for raw in broker.waiting()]
    assert waiting == ids[10:]
    assert not broker.client.exists(Keys().worker("w"))


async def test_what_could_not_go_back_is_left_behind_until_its_lease_is_over(
    valkey_factory: Callable[..., ValkeyServer], start: Start
) -> None:
    """Else a worker that saw an outage long ago would end as if a server had not answered."""
    server = valkey_factory()
    with server.client(decode_responses=False) as client:
        put(Broker(client), 5)
    worker = start(server, lease_ms=4_000)
    await until(lambda: len(worker.arrived) == 5, "5 jobs")
    worker.fetcher.serve([])
    await asyncio.to_thread(server.kill)
    await worker.fetcher.leases.restore(list(worker.fetcher.leases.held))
    assert worker.fetcher.left_behind == 5
    await asyncio.to_thread(server.start)
    await until(lambda: worker.fetcher.left_behind == 0, "the leases to be over")


async def test_closing_is_quick_also_while_it_still_connects(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    loop = asyncio.get_running_loop()
    for n in range(20):
        put(broker, 2)
        worker = start(valkey)
        await until(lambda worker=worker: worker.arrived, "the jobs")  # type: ignore[misc]
        await asyncio.sleep(0.001 * (n % 5))  # at different moments of its connecting
        began = loop.time()
        await worker.fetcher.close()
        assert loop.time() - began < 2
        assert broker.leased() == {}
        broker.client.flushall()


async def test_a_running_job_is_cancelled(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    ids = put(broker, 3)
    worker = start(valkey)
    await until(lambda: len(worker.arrived) == 3, "the jobs")
    broker.client.zadd(Keys().cancels(), {ids[1]: broker.now_ms()})
    await until(lambda: worker.stopped, "the cancellation", 3)
    assert set(worker.stopped) == {(worker.arrived[1].tag, "cancelled")}


async def test_a_job_that_another_worker_has_is_stopped_here(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    put(broker, 1)
    worker = start(valkey, lease_ms=1000)
    await until(lambda: worker.arrived, "the job")
    [job_id] = worker.ids
    broker.client.hset(Keys().owners(), job_id, "another")
    await until(lambda: worker.stopped, "the stop", 5)
    assert worker.stopped[0] == (worker.arrived[0].tag, "lost")


async def test_an_eta_goes_to_the_due_list_and_comes_when_it_is_time(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    late = stock_message("late")
    late["headers"]["eta"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    past = stock_message("past")
    past["headers"]["eta"] = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    broker.push(json.dumps(late))
    broker.push(json.dumps(past))
    worker = start(valkey)
    await until(broker.due, "the due-list")
    await until(lambda: worker.fetcher.held == 1, "only the other job held")
    assert worker.ids == ["past"]


async def test_a_deferred_job_comes_back_within_milliseconds_of_its_time(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    [job_id] = put(broker, 1)
    worker = start(valkey)
    await until(lambda: worker.arrived, "the job")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await worker.fetcher.leases.defer(worker.arrived[0].tag, 300)
    worker.fetcher.ack(worker.arrived[0].tag)
    await until(lambda: len(worker.arrived) == 2, "the job again")
    assert 0.29 < loop.time() - began < 1.0
    assert worker.ids == [job_id, job_id]


async def test_a_renewal_does_not_take_an_acked_job_again(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    put(broker, 1)
    worker = start(valkey)
    await until(lambda: worker.arrived, "the job")
    leases, tag = worker.fetcher.leases, worker.arrived[0].tag
    async with leases.lock:
        renewing = asyncio.ensure_future(leases.renew())
        await asyncio.sleep(0)
        acked = [leases.held[tag]]  # by the round trip that was under way
        ack = broker_jobs.fetch(Keys(), owner="w#x", lease_ms=1, want=0, queues=(), acked=acked)
        script.run(broker.client, ack)
        leases.drop(tag)
    await renewing
    assert broker.is_empty()


async def test_a_renewal_does_not_take_a_deferred_job_again(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    [job_id] = put(broker, 1)
    worker = start(valkey)
    await until(lambda: worker.arrived, "the job")
    leases, tag = worker.fetcher.leases, worker.arrived[0].tag
    async with leases.lock:
        renewing = asyncio.ensure_future(leases.renew())
        await asyncio.sleep(0)
        deferral = broker_jobs.defer(Keys(), lease=leases.held[tag], wait_ms=60_000)
        assert script.run(broker.client, deferral)
        leases.drop(tag)
    await renewing
    assert (broker.due(), broker.leased()) == ({job_id}, {})


async def test_a_renewal_does_not_take_a_restored_job_again(
    broker: Broker, valkey: ValkeyServer, start: Start
) -> None:
    [job_id] = put(broker, 1)
    worker = start(valkey)
    await until(lambda: worker.arrived, "the job")
    worker.fetcher.serve([])
    leases, tag = worker.fetcher.leases, worker.arrived[0].tag
    async with leases.lock:
        renewing = asyncio.ensure_future(leases.renew())
        await asyncio.sleep(0)
        restoring = asyncio.ensure_future(leases.restore([tag]))
        await asyncio.sleep(0.05)
    await asyncio.gather(renewing, restoring)
    assert broker.leased() == {}
    assert [json.loads(raw)["headers"]["id"] for raw in broker.waiting()] == [job_id]


# Messages that are no jobs.


@pytest.mark.parametrize("shape", DEAD)
async def test_what_is_no_job_is_buried_with_its_reason_and_the_next_one_runs(
    broker: Broker, valkey: ValkeyServer, start: Start, shape: str
) -> None:
    broker.push(DEAD[shape])
    [good] = put(broker, 1)
    worker = start(valkey)
    await until(lambda: worker.arrived and broker.dead(), "both")
    assert worker.ids == [good]
    [(queue, reason, raw)] = broker.dead()
    assert (queue, raw) == (STANDARD, DEAD[shape])
    assert 5 < len(reason) < 120
    worker.fetcher.ack(worker.arrived[0].tag)
    await until(broker.is_empty, "nothing left")


@pytest.mark.parametrize("shape", HARMLESS)
async def test_what_only_looks_odd_arrives(
    broker: Broker, valkey: ValkeyServer, start: Start, shape: str
) -> None:
    broker.push(HARMLESS[shape])
    [good] = put(broker, 1)
    worker = start(valkey)
    await until(lambda: len(worker.arrived) == 2, "both")
    assert worker.ids == ["bad", good]
    assert broker.dead() == []
