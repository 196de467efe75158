"""Each reason to wait, from keys as workers and scripts leave them, in one call of Redis."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from headgate import Client, JobTimeout, WaitingFor
from headgate.producer.admin import limits
from headgate.shared.admission.breakers import BreakerRules, report
from headgate.shared.broker import script
from headgate.shared.database.tables import attempts, jobs
from headgate.shared.job.waiting_for import ms_of
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.rig import BULK, STANDARD, URGENT
from tests.support.servers import ValkeyServer
from tests.support.waiting_rooms import POOL, TICKET, Rooms

GPT = "openai/gpt-4o-mini"
MINUTE_MS = 60_000


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
    rooms.staff(STANDARD, BULK, URGENT)
    return rooms


Wait = Callable[..., list[str]]


@pytest.fixture
def wait(client: Client, hand: Rooms) -> Wait:
    """A function that submits jobs and moves them into the waiting queue of their pool."""

    def submit(n: int = 1, queue: str = STANDARD, **fields: Any) -> list[str]:
        asked = {"model": "gpt-4o-mini", "tenant": "acme", "priority": queue.split(".")[1]}
        callers = {k: v for k, v in fields.items() if k in ("tenant", "user")}
        requests: list[Any] = [{**asked, **callers, "prompt": f"{i}"} for i in range(n)]
        ids = client.submit_many(requests)
        at = client.open()
        at.redis.delete(at.keys.queue(queue))
        hand.wait(*ids, queue=queue, **fields)
        return ids

    return submit


def reason(client: Client, job: str) -> WaitingFor:
    """What the job waits for; the error of a wait says the same."""
    found = client.result(job).waiting_for
    assert found is not None
    with pytest.raises(JobTimeout) as caught:
        client.result(job, timeout_s=0)
    told = caught.value.waiting_for
    assert told is not None
    assert (told.kind, told.name) == (found.kind, found.name)
    return found


def left_s(hand: Rooms, found: WaitingFor) -> float:
    """The seconds that are left, by the clock of the server."""
    until = ms_of(found.until)
    assert until is not None
    return (until - hand.now_ms()) / 1000


def test_a_limit_of_the_pool_is_named_with_its_amount_and_a_forecast(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    hand.limit(f"pool/{POOL}", "rpm=600 tpm=30000")
    hand.fill(f"pool/{POOL}", "key0", rpm=0, tpm=-100_000)
    [*_, last] = wait(10)
    found = reason(client, last)
    assert (found.kind, found.name) == ("limit", f"pool/{POOL}")
    assert found.why == "tokens per minute, 30,000"
    assert f"limits set pool/{POOL} tpm=" in found.help
    # 105,000 tokens at 499 a second.
    assert left_s(hand, found) == pytest.approx(210, rel=0.1)
    assert client.result(last).retry_at == found.until or left_s(hand, found) > 100


def test_a_limit_of_the_user_binds_a_job_in_a_pool_that_is_free(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    hand.limit(f"pool/{POOL}", "rpm=6000")
    hand.fill(f"pool/{POOL}", "key0", rpm=50)
    hand.limit("user/acme/u1", "rpm=10")
    hand.fill("user/acme/u1", rpm=0)
    ids = wait(100, user="u1")
    found = reason(client, ids[-1])
    assert (found.kind, found.name) == ("limit", "user/acme/u1")
    assert found.why == "requests per minute, 10"
    assert left_s(hand, found) == pytest.approx(600, rel=0.1)
    assert client.status(ids[-1]) == "deferred"


def test_a_limit_that_the_provider_named_is_its_own(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    bucket = hand.keys.bucket(f"pool/{POOL}", "key0")
    seen = {"rpm.seen": 30, "rpm.level": -20, "rpm.at": hand.now_ms()}
    for name, value in seen.items():
        hand.client.hset(bucket, name, str(value))
    [job] = wait()
    found = reason(client, job)
    assert found.why == "requests per minute, 30, as the provider says"
    assert "ask the provider" in found.help


def test_a_budget_whose_soft_share_is_spent_keeps_bulk_jobs_until_its_period_ends(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    keys = hand.keys
    day = datetime.fromtimestamp(hand.now_ms() / 1000, UTC).strftime("%Y%m%d")
    hand.client.hset(keys.budgets(), "tenant/acme", "usd_per_day=0.001")
    hand.client.hset(keys.sums_read(day), "tenant/acme", "1")
    hand.client.hset(keys.budget("tenant/acme", day), "spent", 1_012_000_000)
    [job] = wait(queue=BULK, priority="bulk", upper_bound_pico_usd=1000)
    [other] = wait(priority="standard", upper_bound_pico_usd=1000)
    found = reason(client, job)
    assert (found.kind, found.name) == ("budget", "tenant/acme")
    assert found.why == "0.001 USD a day, of which 100% are spent: bulk jobs wait"
    until = ms_of(found.until) or 0
    assert until % 86_400_000 == 0
    assert 0 < until - hand.now_ms() <= 86_400_000
    assert client.result(other).waiting_for != found


def test_a_gate_is_told_with_its_reason(client: Client, hand: Rooms, wait: Wait) -> None:
    [job] = wait()
    hand.shut(90_000, "limited")
    found = reason(client, job)
    assert (found.kind, found.name) == ("gate", f"pool/{POOL}")
    assert found.why == "it refused calls because of a limit"
    assert left_s(hand, found) == pytest.approx(90, abs=20)
    hand.client.hset(hand.keys.gate(POOL, "key0"), mapping={"until": 4e12, "why": "money"})
    found = reason(client, job)
    assert (found.why, found.until) == ("its credit is used up", None)
    assert f"headgate resume pool {POOL}" in found.help


def test_a_model_that_is_down_is_told_with_its_last_fault(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    rules = BreakerRules(failures=1, open_s=60)
    fault = "connection: cannot connect to 127.0.0.1:8499"
    command = report(hand.keys, GPT, "key0", rules, failed=1, fault=fault)
    assert script.run(hand.client, command).verdict == "opened"
    [job] = wait()
    found = reason(client, job)
    assert (found.kind, found.name, found.why) == ("model_down", GPT, f"last fault: {fault}")
    assert left_s(hand, found) == pytest.approx(60, abs=25)
    assert "headgate resume model gpt-4o-mini" in found.help


def test_a_pause_is_told_with_who_made_it_and_when(client: Client, hand: Rooms, wait: Wait) -> None:
    at = client.open()
    [job] = wait()
    began = hand.now_ms()
    for kind, name in (("pool", POOL), ("tenant", "acme"), ("queue", STANDARD)):
        member = f"{kind}/{name}"
        assert limits.pause(at, member)
        found = reason(client, job)
        assert (found.kind, found.name) == ("paused", member)
        assert found.why == f"by {limits.operator()}"
        assert began - 2 <= (ms_of(found.since) or 0) <= hand.now_ms()
        assert found.help == f"`headgate resume {kind} {name}`"
        limits.resume(at, member)
    assert at.redis.exists(at.keys.pauses()) == 0
    assert client.result(job).waiting_for != found


def test_no_worker_for_the_queue_is_told_and_whether_its_class_has_one(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    [job] = wait()
    hand.staff(URGENT)
    found = reason(client, job)
    assert (found.kind, found.name) == ("no_worker", STANDARD)
    assert found.why == "the workers that run serve other queues"
    assert f"--queues {STANDARD}" in found.help
    assert client.status(job) == "queued"
    hand.staff("headgate.standard.smart")
    assert reason(client, job).why == "no worker that runs serves the class fast"
    hand.client.delete(hand.keys.workers(), hand.keys.worker("played"))
    assert reason(client, job).why == "no worker runs"
    in_list = client.submit("x", model="gpt-4o-mini").id
    assert reason(client, in_list).kind == "no_worker"


def test_a_worker_of_the_release_before_counts_as_one_for_every_queue(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    [job] = wait()
    hand.client.delete(hand.keys.workers(), hand.keys.worker("played"))
    hand.client.set(hand.keys.worker("old@host"), "3", px=MINUTE_MS)
    assert reason(client, job).kind != "no_worker"


def test_no_key_of_the_provider_is_told(client: Client, hand: Rooms, wait: Wait) -> None:
    [job] = wait()
    hand.staff(STANDARD, providers="anthropic")
    found = reason(client, job)
    assert (found.kind, found.name) == ("no_key", "openai")
    hand.staff(STANDARD, providers=None)
    assert reason(client, job).kind != "no_key", "the worker does not say"


def test_an_equal_job_and_a_due_time_are_told(client: Client, hand: Rooms, wait: Wait) -> None:
    keys, ticket = hand.keys, TICKET
    leader, follower, retried, eta = client.submit_many(
        [{"prompt": "x", "model": "gpt-4o-mini"}] * 4
    )
    hand.client.delete(keys.queue(STANDARD))
    for job in (follower, retried, eta):
        hand.client.hset(keys.messages(), job, f'{STANDARD}\n{{"hg":"{job}","at":""}}')
    print_of = "f" * 32
    hand.client.hset(keys.tickets(), follower, replace(ticket, cached_as=print_of).encode())
    hand.client.zadd(keys.followers(), {follower: 9e15})
    hand.client.hset(keys.flights(), print_of, leader)
    found = reason(client, follower)
    assert (found.kind, found.name) == ("equal_job", leader)

    due_ms = hand.now_ms() + 50_000
    hand.client.zadd(keys.due(), {retried: due_ms, eta: due_ms})
    with client.open().engine.begin() as connection:
        failed = {
            "job_id": retried, "fence": 1, "n": 1, "model": "gpt-4o-mini", "provider": "openai",
            "state": "failed", "code": "overloaded", "message": "HTTP 503: busy",
            "started_at_ms": 1, "settled_at_ms": 2, "waited_ms": 0,
        }  # fmt: skip
        connection.execute(insert(attempts).values(failed))
        ran = update(jobs).where(jobs.c.id == retried).values(status="deferred", started_at_ms=1)
        connection.execute(ran)
    found = reason(client, retried)
    assert (found.kind, found.name) == ("due", "retry")
    assert found.why == "after overloaded: HTTP 503: busy"
    assert ms_of(found.until) == due_ms
    assert reason(client, eta).name == "eta"
    assert client.status(eta) == "deferred"


def test_those_whom_nothing_binds_wait_for_their_turn(
    client: Client, hand: Rooms, wait: Wait
) -> None:
    ids = wait(3)
    assert reason(client, ids[2]).why == "2 jobs are ahead of it"
    assert reason(client, ids[1]).why == "1 job is ahead of it"
    found = reason(client, ids[0])
    assert (found.kind, found.name, found.until) == ("turn", STANDARD, None)


def test_a_job_that_a_worker_holds_waits_for_nothing(client: Client, hand: Rooms) -> None:
    job = client.submit("x", model="gpt-4o-mini").id
    hand.client.hset(hand.keys.owners(), job, "w#1")
    assert client.result(job).waiting_for is None


def test_commands_tell_the_same(
    client: Client, hand: Rooms, wait: Wait, settings: Settings, tmp_path: Path
) -> None:
    hand.limit(f"pool/{POOL}", "rpm=60")
    hand.fill(f"pool/{POOL}", "key0", rpm=-300)
    [job] = wait()
    env = {"HEADGATE_REDIS_URL": str(settings.redis_url), "HEADGATE_HOME": str(settings.home)}
    told = headgate(["result", job], env)
    assert told.code == 1
    words = f"waiting for the limit of {POOL} (requests per minute, 60)"
    assert f"job {job} is deferred, {words}" in told.err
    [line] = headgate(["jobs", "--json"], env).out.splitlines()
    assert '"waiting_for":{"kind":"limit","name":"pool/openai/gpt-4o-mini"' in line
    assert (
        "the limit of openai/gpt-4o-mini (requests per minute, 60)" in headgate(["jobs"], env).out
    )
    document = headgate(["result", job, "--json"], env).document
    assert document["waiting_for"]["why"] == "requests per minute, 60"
    late = headgate(["result", job, "--timeout", "10"], env)
    assert late.err.count(words) == 2, "after 3 s, and in the error"
