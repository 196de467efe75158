"""Behind sentinels: the master is killed, then the next one frozen, under load; all follow."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headgate.shared.servers.servers import Servers, open_servers
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.command import program
from tests.support.sentinels import SentinelSet, role, sentinel_set
from tests.support.servers import Simulator, ValkeyServer

JOBS = 1_500
BACK_WITHIN_S = 20
"""One second until the sentinels miss a master, some for their vote, five for a call to a frozen
one; the rest is for slow machines."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_frozen_masters_lose_nothing_and_work_goes_on_within_seconds(
    simulator_factory: Callable[..., Simulator], tmp_path: Path
) -> None:
    simulator = simulator_factory("--latency-ms", "150", "--latency-sigma", "0.2")
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_CONCURRENCY": "50",
        "HEADGATE_LEASE_S": "3",
        "HEADGATE_SWEEP_S": "1",
    }
    source, out = installation.write_prompts(tmp_path / "in.jsonl", JOBS), tmp_path / "out.jsonl"
    url = installation.database_url(env)
    with sentinel_set() as servers:
        env["HEADGATE_REDIS_URL"] = servers.url
        batch = installation.command(
            ["batch", "run", source, "-o", out], env, tmp_path / "batch.log"
        )
        worker = installation.worker_process(env, tmp_path)
        with installation.ended_afterwards(batch, worker):
            worker.start()
            batch.start()
            wait_until(lambda: installation.count_ended(url) >= 200, 60, "jobs to end")
            first = servers.master
            first.kill()
            _goes_on(servers, first, url)
            first.start()
            wait_until(lambda: role(first) == "slave", 40, "the killed master to be a replica")
            servers.settled()
            second = servers.master
            second.freeze()
            third = _goes_on(servers, second, url)
            assert installation.exit_code(batch, 90) == 0, batch.log_end()
            wait_until(lambda: _is_waited_on(third), 12, "the worker to wait at the new master")
            second.thaw()
            wait_until(lambda: role(second) == "slave", 40, "the frozen master to be a replica")
            _celery_follows(env, servers, out)
            assert worker.stop(30) == 0
    installation.each_is_answered_once(out, JOBS)
    installation.the_books_agree(url, simulator, JOBS, unknown=0)


def _goes_on(servers: SentinelSet, old: ValkeyServer, url: str) -> ValkeyServer:
    """Another master is named, and jobs end again; how many had ended is not enough."""
    lost_at = time.monotonic()
    new = servers.new_master(old)
    ended = installation.count_ended(url)
    left_s = max(5.0, BACK_WITHIN_S - (time.monotonic() - lost_at) / BUSY)
    wait_until(
        lambda: installation.count_ended(url) >= min(JOBS, ended + 100), left_s, "work to go on"
    )
    return new


def _is_waited_on(server: ValkeyServer) -> bool:
    """Whether a worker's blocking pop is at this server."""
    with server.client() as client:
        return any(one["cmd"] == "blpop" for one in client.client_list())


def _celery_follows(env: dict[str, str], servers: SentinelSet, out: Path) -> None:
    """Remote control and the result backend are at the new master."""
    argv = [sys.executable, "-m", "celery", "-A", "headgate.workers.app", "inspect", "ping"]
    # It asks once, and waits for a second: the worker's connection for this may come later.
    wait_until(lambda: "pong" in program(argv, env).out, 40, "the worker to answer a ping")
    job_id = json.loads(out.read_text().splitlines()[-1])["headgate"]["job_id"]
    opened: Servers = open_servers(Settings(redis_url=servers.url, home=Path(env["HEADGATE_HOME"])))
    client = opened.redis_client()
    try:
        assert client.exists(opened.keys.result(job_id))
    finally:
        client.close()
        opened.close()
