"""What the fetch script costs Valkey, by the number of pools: no worker, no provider, no database.

`used_cpu_user` and `used_cpu_sys` of the server, over some thousand jobs of 600 bytes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import redis

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.jobs import Fetched, Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import queue_name
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder
from tests.support.waiting_rooms import TICKET

POOLS, JOBS, WANT, IDLE_FETCHES = (1, 10, 100, 1_000), 4_000, 16, 200
QUEUES = [queue_name(priority, "fast") for priority in ("interactive", "standard", "bulk")]
KEYS = Keys()


class Played:
    """A worker and a producer that only call the scripts."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._trips = count()

    def cpu_ms(self) -> float:
        """What the server has spent so far."""
        found: Any = self.client.info("cpu")
        return 1000 * float(found["used_cpu_user"] + found["used_cpu_sys"])

    def limit(self, pools: int, limits: str) -> None:
        """Each of the pools has these limits."""
        found = {f"pool/openai/m{n}": limits for n in range(pools)}
        self.client.hset(KEYS.limits(), mapping=found)  # type: ignore[arg-type]

    def send(self, jobs: int, pools: int) -> None:
        """The jobs go to all pools in turn."""
        [now_s, _] = self.client.time()
        pairs = []
        for n in range(jobs):
            pool, arrival_ms = n % pools, int(now_s) * 1000 + n // 1000
            ticket = replace(
                TICKET, pool=f"openai/m{pool}", model=f"m{pool}", arrival_ms=arrival_ms
            )
            text = f'{{"hg":"j{n}","at":"{ticket.encode()}","body":"{"x" * 600}"}}'
            pairs.append((f"j{n}", text.encode()))
        for first in range(0, jobs, 500):
            command = broker_jobs.send(KEYS, QUEUES[2], pairs[first : first + 500])
            script.run(self.client, command)

    def fetch(self, want: int, acked: list[Lease]) -> tuple[Fetched, list[Lease]]:
        """One round trip; and the leases that it has taken."""
        owner = f"w#{next(self._trips)}"
        command = broker_jobs.fetch(
            KEYS, owner=owner, lease_ms=60_000, want=want, queues=QUEUES, acked=acked
        )
        found = script.run(self.client, command)
        return found, [Lease(job.id, owner) for job in found.taken]

    def drain(self, jobs: int) -> None:
        """All jobs are fetched and acknowledged."""
        acked: list[Lease] = []
        while jobs > 0:
            _, acked = self.fetch(WANT, acked)
            jobs -= len(acked)


def _job_ms(played: Played, pools: int) -> float:
    played.limit(pools, "rpm=600000 tpm=600000000")
    played.send(JOBS, pools)
    before = played.cpu_ms()
    played.drain(JOBS)
    return (played.cpu_ms() - before) / JOBS


def _shut_ms(played: Played, pools: int) -> float:
    played.limit(pools, "rpm=1")
    played.send(2 * pools, pools)
    while (found := played.fetch(64, [])[0]).taken or found.more:
        pass
    before = played.cpu_ms()
    for _ in range(IDLE_FETCHES):
        played.fetch(64, [])
    return (played.cpu_ms() - before) / IDLE_FETCHES


def scripts() -> Table:
    """By the number of pools: a job, and a fetch while all pools are shut."""
    columns = ("", "Valkey, CPU-ms a job", "CPU-ms a fetch, all pools shut")
    found = Table("fetch script by pools", columns)
    for pools in POOLS:
        figures = []
        for measure in (_job_ms, _shut_ms):
            with (
                short_folder() as folder,
                ValkeyServer(folder) as server,
                server.client(decode_responses=False) as client,
            ):
                figures.append(measure(Played(client), pools))
        found.add(f"{pools:,}", *(f"{one:.3f}" for one in figures))
    return found
