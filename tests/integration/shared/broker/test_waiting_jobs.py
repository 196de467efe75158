"""Jobs that wait in a room of the governor show as deferred, with the moment of their grant."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headgate import Client
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, Rooms


@pytest.fixture
def settings(valkey: ValkeyServer, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", redis_url=valkey.url)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


@pytest.fixture
def hand(client: Client) -> Rooms:
    at = client.open()
    rooms = Rooms(at.redis, at.keys)
    rooms.staff()
    return rooms


@pytest.fixture
def wait(client: Client, hand: Rooms) -> Callable[..., list[str]]:
    """A function that submits jobs and moves them into the room of their pool."""

    def submit(n: int = 1, queue: str = STANDARD, **fields: Any) -> list[str]:
        asked = {"model": "gpt-4o-mini", "tenant": "acme", "priority": queue.split(".")[1]}
        requests: list[Any] = [{**asked, **fields, "prompt": f"{i}"} for i in range(n)]
        ids = client.submit_many(requests)
        at = client.open()
        at.redis.delete(at.keys.queue(queue))
        callers: dict[str, Any] = {k: v for k, v in fields.items() if k in ("tenant", "user")}
        hand.wait(*ids, queue=queue, **callers)
        return ids

    return submit


DEBT = 300
"""Calls that the pool of `busy` has taken too many: no job starts however slow the test is."""


@pytest.fixture
def busy(hand: Rooms) -> int:
    """The pool has 60 calls a minute and is in debt; the moment at which the debt is paid."""
    hand.limit(f"pool/{POOL}", "rpm=60")
    hand.fill(f"pool/{POOL}", "key0", rpm=-DEBT)
    filled_ms: Any = hand.client.hget(hand.keys.bucket(f"pool/{POOL}", "key0"), "rpm.at")
    return int(filled_ms) + DEBT * 1000


def seconds_after(moment_ms: int, found: Result) -> float:
    """When the job is expected to start, in seconds after this moment of the server."""
    assert found.status == "deferred"
    assert found.retry_at is not None
    return datetime.fromisoformat(found.retry_at).timestamp() - moment_ms / 1000


def test_a_message_in_its_list_is_queued(client: Client, busy: int) -> None:
    job = client.submit("x", model="gpt-4o-mini")
    assert client.result(job.id).status == "queued"


def test_a_job_whose_pool_may_start_it_is_queued(
    client: Client, hand: Rooms, wait: Callable[..., list[str]]
) -> None:
    hand.limit(f"pool/{POOL}", "rpm=60")
    [job] = wait()
    assert client.result(job).status == "queued"
    assert client.status(job) == "queued"


def test_each_job_of_a_line_is_told_when_its_turn_comes(
    client: Client, hand: Rooms, wait: Callable[..., list[str]], busy: int
) -> None:
    ids = wait(60)
    assert client.status(ids[0]) == "deferred"
    assert seconds_after(busy, client.result(ids[0])) == pytest.approx(1, abs=1)
    assert seconds_after(busy, client.result(ids[29])) == pytest.approx(30, abs=2)
    assert seconds_after(busy, client.result(ids[59])) == pytest.approx(60, abs=2)


def test_tenants_take_turns_and_urgent_rooms_go_first(
    client: Client, hand: Rooms, wait: Callable[..., list[str]], busy: int
) -> None:
    mine = wait(10)
    wait(1000, tenant="other")
    assert seconds_after(busy, client.result(mine[9])) == pytest.approx(20, abs=2)
    at = client.open()
    wait(100, queue=URGENT)
    at.redis.zadd(at.keys.waiting_queue(URGENT, POOL, "ages"), {"acme|": 1})
    assert seconds_after(busy, client.result(mine[9])) == pytest.approx(120, abs=2)


def test_a_shut_gate_is_waited_for(
    client: Client, hand: Rooms, wait: Callable[..., list[str]]
) -> None:
    [job] = wait()
    hand.shut(90_000, "limited")
    until_ms: Any = hand.client.hget(hand.keys.gate(POOL, "key0"), "until")
    assert seconds_after(int(until_ms), client.result(job)) == pytest.approx(0, abs=2)


def test_where_nobody_can_tell_no_moment_is_told(
    client: Client, hand: Rooms, wait: Callable[..., list[str]], settings: Settings
) -> None:
    at = client.open()
    [job] = wait()
    for member in (f"pool/{POOL}", "tenant/acme", f"queue/{STANDARD}"):
        at.redis.sadd(at.keys.paused(), member)
        found = client.result(job)
        assert (found.status, found.retry_at) == ("deferred", None)
        at.redis.srem(at.keys.paused(), member)
    assert client.result(job).status == "queued"
    hand.shut(4_102_444_800_000 - hand.now_ms(), "money")
    found = client.result(job)
    assert (found.status, found.retry_at) == ("deferred", None)
    env = {"HEADGATE_REDIS_URL": str(settings.redis_url), "HEADGATE_HOME": str(settings.home)}
    told = headgate(["result", job], env).err
    assert f"job {job} is deferred, waiting for {POOL}, whose provider takes no calls" in told
    assert "(its credit is used up)" in told
    assert "; add credit at the provider, then `headgate resume pool" in told


def test_a_user_over_a_limit_of_its_own_is_told_when_it_is_tried_again(
    client: Client, hand: Rooms, wait: Callable[..., list[str]]
) -> None:
    [job] = wait(user="u1")
    [other] = wait(user="u2")
    began_ms = hand.now_ms()
    hand.park("u|acme|u1", began_ms + 45_000)
    assert seconds_after(began_ms, client.result(job)) == pytest.approx(45, abs=2)
    assert client.result(other).status == "queued"


def test_a_list_of_jobs_tells_them_apart_and_can_be_asked_for_either(
    client: Client, wait: Callable[..., list[str]], busy: int
) -> None:
    ids = wait(700)
    in_list = client.submit_many({"prompt": "x", "model": "gpt-4o"} for _ in range(3))
    deferred = client.jobs(status="deferred", limit=650)
    assert {one.status for one in deferred} == {"deferred"}
    assert len(deferred) == 650
    assert all(one.retry_at for one in deferred)
    assert {one.id for one in deferred} <= set(ids)
    assert {one.id for one in client.jobs(status="queued", limit=1000)} == set(in_list)
    both = client.jobs(limit=5, since=timedelta(hours=1))
    assert [one.status for one in both].count("queued") == 3


def test_the_record_is_told_also_when_the_broker_is_away(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    server = valkey_factory()
    with Client(Settings(home=tmp_path, redis_url=server.url)) as client:
        job = client.submit("x", model="gpt-4o-mini")
        server.kill()
        assert client.result(job.id).status == "queued"
        assert [one.id for one in client.jobs()] == [job.id]


def test_a_page_of_jobs_costs_one_round_trip(
    client: Client, wait: Callable[..., list[str]], busy: int
) -> None:
    wait(150)
    wait(50, queue=BULK)
    at = client.open()
    client.jobs(limit=200)
    before = at.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert len(client.jobs(limit=200)) == 200
    after = at.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    assert after - before == 1
