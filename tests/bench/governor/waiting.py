"""What waiting costs: CPU of four workers and Valkey together, while nearly nothing may run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import redis

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.job.ids import now_ms
from tests.bench.governor.load import Span, tell_errors, workers_for
from tests.bench.governor.order import waiting as jobs_in_line
from tests.bench.governor.prompts import requests
from tests.bench.governor.vendors import Vendor
from tests.bench.rig import Rig
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, TENANTS, WATCH_S, QUIET_S = 100_000, 10_000, 20, 5
PER_SUBMIT = 10_000


def waiting(span: Span) -> Table:
    """A row for no job at all, a shut gate, a slow pool, and ten thousand blocked tenants."""
    del span
    columns = ("", "workers", "Valkey", "together, of one core", "memory of the workers")
    found = Table(f"{JOBS:,} waiting jobs, 4 workers, {WATCH_S} s", columns)
    _row(found, "no job", _pool(None), 0, 1, _nothing)
    _row(found, "a shut gate", _pool(None), JOBS, 1, _shut)
    _row(found, "a pool of 60 requests a minute", _pool(60), JOBS, 1, _nothing)
    _row(found, f"{TENANTS:,} tenants over their day's limit", _pool(None), JOBS, TENANTS, _spent)
    found.note = "Memory: over what it was before the jobs came."
    return found


def _pool(rpm: int | None) -> Vendor:
    limits = {"rpm": rpm or 6_000_000}
    return Vendor("", "gpt-4o-mini", "openai/gpt-4o-mini", 40, limits)


Block = Callable[[redis.Redis, Vendor], None]


def _nothing(_client: redis.Redis, _vendor: Vendor) -> None:
    """The pool's own limit is what the jobs wait for."""


def _shut(client: redis.Redis, vendor: Vendor) -> None:
    """True afterwards: the provider's gate is shut for an hour."""
    gate: dict[Any, Any] = {"until": now_ms() + 3_600_000, "why": "limited"}
    client.hset(Keys().gate(vendor.pool, "key0"), mapping=gate)


def _spent(client: redis.Redis, _vendor: Vendor) -> None:
    """True afterwards: each tenant may have one job a day."""
    client.hset(Keys().overrides(), "tenant/*", "rpd=1")


def _row(found: Table, name: str, vendor: Vendor, jobs: int, tenants: int, block: Block) -> None:
    with workers_for(vendor) as bench, Client(bench.settings) as client:
        with bench.client() as server:
            block(server, vendor)
            before_mb = bench.rss_mb()
            _submit(client, vendor, jobs, tenants)
            _settled(bench, server, jobs)
        time.sleep(QUIET_S)
        valkey = psutil.Process(bench.valkey.pid)
        workers_s, valkey_s = bench.cpu_s(), sum(valkey.cpu_times()[:2])
        time.sleep(WATCH_S)
        workers = (bench.cpu_s() - workers_s) / WATCH_S
        server_share = (sum(valkey.cpu_times()[:2]) - valkey_s) / WATCH_S
        more_mb = bench.rss_mb() - before_mb
        tell_errors(bench)
    both = f"{workers + server_share:.2%}"
    found.add(name, f"{workers:.2%}", f"{server_share:.2%}", both, f"{more_mb:+.0f} MB")


def _submit(client: Client, vendor: Vendor, jobs: int, tenants: int) -> None:
    made = requests(jobs, model=vendor.model, max_tokens=vendor.max_tokens, priority="bulk")
    for number, one in enumerate(made):
        one["tenant"] = f"t{number % tenants}"
    for first in range(0, jobs, PER_SUBMIT):
        client.submit_many(made[first : first + PER_SUBMIT])


def _settled(bench: Rig, server: redis.Redis, jobs: int) -> None:
    """All jobs stand in rooms, but for those that have run; and nothing runs."""
    if not jobs:
        return

    def quiet() -> bool:
        listed = sum(int(server.llen(key)) for key in server.scan_iter("headgate.*", _type="list"))
        return listed == 0 and int(server.zcard(Keys().leases())) <= 1

    wait_until(quiet, 180, f"all stand in line; {jobs_in_line(server)} do")
    if bench.simulator is not None:
        wait_until(lambda: _open(bench) <= 1, 60, "no call is under way")


def _open(bench: Rig) -> int:
    return int(bench.simulator.stats()["open_now"])
