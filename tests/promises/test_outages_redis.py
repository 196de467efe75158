"""Redis goes away, stands still, forgets, remembers too much, is full: under load, and nothing is
lost, nothing is paid for twice, and little is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from headgate.shared.broker.keys import Keys
from tests.support import installation
from tests.support.child import wait_until
from tests.support.outages import (
    LEASE_S,
    cpu_share,
    each_user_said_it_once,
    ended,
    finished,
    frozen,
    said,
    scene,
)
from tests.support.proxy import TcpProxy
from tests.support.servers import Simulator, ValkeyServer

JOBS = 900
pytestmark = pytest.mark.slow

LENGTHS = [
    pytest.param(LEASE_S + 2, id="for longer than a lease"),
    pytest.param(30.0, id="for 30 s", marks=pytest.mark.long),
    pytest.param(300.0, id="for 5 min", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
]


@pytest.fixture
def slow_answers(simulator_factory: Callable[..., Simulator]) -> Simulator:
    """A provider that takes its time, so that calls are under way, and jobs left for a while."""
    return simulator_factory("--latency-ms", "300", "--latency-sigma", "0.2")


@pytest.mark.parametrize("away_s", LENGTHS)
def test_workers_and_a_batch_wait_for_a_redis_that_is_down_and_say_so_once(
    away_s: float,
    valkey_factory: Callable[..., ValkeyServer],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory(appendonly=True)
    with scene(tmp_path, slow_answers, server.url, sqlite_url, count=JOBS, workers=2) as here:
        batch = here.batch("--max-in-flight", "300")  # so that it has still to submit
        with installation.ended_afterwards(batch):
            batch.start()
            here.until_ended(50)
            server.kill()
            here.calls_are_done()
            here.until_ended(here.simulator.stats()["accepted"])  # running jobs are recorded
            memory = [psutil.Process(worker.pid).memory_info().rss for worker in here.workers]
            assert cpu_share(here.workers[0], away_s / 2) < 0.2
            assert cpu_share(batch, away_s / 2) < 0.2
            for before, worker in zip(memory, here.workers, strict=True):
                assert psutil.Process(worker.pid).memory_info().rss < before + 30e6
            server.start()
            finished(here, batch)
        here.all_is_well()
        for worker in here.workers:
            each_user_said_it_once(worker)
        assert batch.log().count("does not answer") == batch.log().count("answer again") == 1
        assert "no worker answers" not in batch.log()


def test_a_redis_that_stands_still_for_longer_than_a_lease_ends_no_lease(
    valkey_factory: Callable[..., ValkeyServer],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    with scene(tmp_path, slow_answers, server.url, sqlite_url, count=JOBS, workers=2) as here:
        with here.under_load(50), frozen(server):
            assert cpu_share(here.workers[0], LEASE_S + 1) < 0.2  # over the 5 s of a socket, too
        for worker in here.workers:
            each_user_said_it_once(worker)


def test_a_redis_that_comes_back_empty_is_given_all_jobs_again_from_the_record(
    valkey_factory: Callable[..., ValkeyServer],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    with scene(tmp_path, slow_answers, server.url, sqlite_url, count=JOBS, lease_s=3) as here:
        with here.under_load(50):
            server.kill()
            here.calls_are_done()
            server.start()
            here.until_ended(300)
            with server.client() as client:
                pipe = client.pipeline()
                pipe.flushall()
                # Running jobs are known again when their leases are renewed. A sweep before that
                # would send them again, too.
                pipe.set(Keys().sweeper(), "nobody", px=2_000)
                pipe.execute()
                for _ in range(50):
                    client.script_flush()
                    time.sleep(0.01)
        wait_until(lambda: said(here.workers[0], "were sent again"), 20, "the log to say so")


@pytest.mark.long
def test_jobs_of_an_old_snapshot_are_not_run_again(
    valkey_factory: Callable[..., ValkeyServer],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    with (
        scene(tmp_path, slow_answers, server.url, sqlite_url, count=JOBS) as here,
        here.under_load(100) as batch,
    ):
        with server.client() as client:
            client.save()
        here.until_ended(400)
        server.kill()
        server.start()
        ended(batch)
        with server.client() as client:
            wait_until(lambda: not client.exists(Keys().present()), 30, "acks of old jobs")


def test_a_redis_that_is_full_or_read_only_for_longer_than_a_lease_is_waited_for(
    valkey_factory: Callable[..., ValkeyServer],
    simulator_factory: Callable[..., Simulator],
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    calls = simulator_factory("--latency-ms", "1500", "--latency-sigma", "0.8")
    with scene(tmp_path, calls, server.url, sqlite_url, count=110, lease_s=3) as here:
        batch = here.batch()
        with installation.ended_afterwards(batch), server.client() as client:
            batch.start()
            here.until_ended(20)
            client.config_set("maxmemory", "1mb")
            share = cpu_share(here.workers[0], 4)
            client.config_set("maxmemory", "0")
            assert share < 0.3
            here.until_ended(45)
            client.replicaof("127.0.0.1", "1")  # nobody is there: an old master in a failover
            share = cpu_share(here.workers[0], 4)
            client.replicaof("no", "one")
            assert share < 0.3
            finished(here, batch)
        here.all_is_well()
        each_user_said_it_once(here.workers[0], outages=2)


@pytest.mark.long
def test_a_redis_that_answers_in_fits_is_slow_and_nothing_worse(
    valkey_factory: Callable[..., ValkeyServer],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    with scene(tmp_path, slow_answers, server.url, sqlite_url, count=300) as here:
        batch = here.batch()
        with installation.ended_afterwards(batch):
            batch.start()
            until = time.monotonic() + 60
            while batch.running and time.monotonic() < until:
                with frozen(server):
                    time.sleep(0.4)
                time.sleep(0.1)
            finished(here, batch)
        here.all_is_well()
        assert not said(here.workers[0], "does not answer")


@pytest.mark.long
def test_a_broken_line_to_redis_delays_and_loses_nothing(
    valkey_factory: Callable[..., ValkeyServer],
    tcp_proxy: Callable[[int], TcpProxy],
    slow_answers: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    line = tcp_proxy(server.port)
    url = f"redis://127.0.0.1:{line.port}/0"
    with (
        scene(tmp_path, slow_answers, url, sqlite_url, count=1_200) as here,
        here.under_load(100),
    ):
        for size in (1, 10, 100, 1_000, 5_000, 20_000):  # in the middle of a reply
            line.cut_after(size)
            time.sleep(0.2)
        line.swallow()
        time.sleep(LEASE_S + 3)
        line.flow()
        here.until_ended(installation.count_ended(here.url) + 100)
        line.stall()
        time.sleep(LEASE_S + 1)
        line.flow()
        line.delay(0.3)
        here.until_ended(installation.count_ended(here.url) + 50)
        line.flow()


def test_a_lost_wake_up_delays_a_job_by_a_second_at_most(
    valkey_factory: Callable[..., ValkeyServer],
    simulator: Simulator,
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    server = valkey_factory()
    with (
        scene(tmp_path, simulator, server.url, sqlite_url, count=50) as here,
        server.client(decode_responses=False) as client,
        installation.ended_afterwards(batch := here.batch()),
    ):
        batch.start()
        while batch.running:  # whoever takes the tokens here wakes nobody
            with suppress(redis.RedisError):
                client.delete(*client.keys("headgate:wake:*") or ["none"])
            time.sleep(0.005)
        finished(here, batch)
        here.all_is_well()
