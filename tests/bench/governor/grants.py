"""Grants a second of the two scripts that admit, and what one costs the server."""

from __future__ import annotations

import itertools
from typing import Any

import psutil
import redis

from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import jobs, script
from headgate.shared.broker.jobs import Lease
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command
from headgate.shared.job.ids import now_ms
from headgate.workers.stages import hold
from tests.bench.governor.load import Span
from tests.bench.governor.wire import Next, drive
from tests.bench.rig import stopwatch
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder

CLIENTS, WANTS = (1, 10, 64), (1, 16, 64)
RESERVATIONS, FETCHED = 50_000, 40_000
POOLS, TENANTS = 3, 10
QUEUE = "headgate.bulk.fast"
FILLING = "x" * 1_000
"""With the ticket a message has some 1,200 bytes, as one with a prompt of 300 characters."""

WIDE = "rpm=600000000 tpm=60000000000 ramp_from=60000000000"
"""Counted like any other limit, and never met but in the first milliseconds of a bucket."""


def grants(span: Span) -> Table:
    """`reserve` by clients side by side, then `fetch` by how many jobs it may take."""
    del span
    found = Table("grants, nothing that limits them", ("", "grants/s", "server us per grant"))
    for clients in CLIENTS:
        name = f"reserve, {clients} client{'s' * (clients > 1)}"
        _add(found, name, *_reserving(clients))
    for clients, want in itertools.product((1, 4), WANTS):
        name = f"fetch of up to {want}, {clients} client{'s' * (clients > 1)}"
        _add(found, name, *_fetching(clients, want))
    found.note = "Closed loops of one client process; fetch moves and acknowledges the jobs, too."
    return found


def _add(found: Table, name: str, rate: float, cpu_us: float) -> None:
    found.add(name, f"{rate:,.0f}", f"{cpu_us:.1f}")


def _ticket(number: int) -> Ticket:
    now = now_ms()
    return Ticket(
        pool=f"openai/pool{number % POOLS}", model=f"model{number % POOLS}", priority="bulk",
        tenant=f"t{number % TENANTS}", user="", tier="", rule="o", input_tokens=92,
        output_tokens=40, arrival_ms=now, deadline_ms=now + 86_400_000,
    )  # fmt: skip


def _limits(client: redis.Redis, keys: Keys) -> None:
    for number in range(POOLS):
        client.hset(keys.limits(), f"pool/openai/pool{number}", WIDE)


def _measured(server: ValkeyServer, clients: list[Next], count: int) -> tuple[float, float]:
    """Grants a second, and microseconds of the server's CPU for each."""
    process = psutil.Process(server.pid)
    cpu, began = sum(process.cpu_times()[:2]), stopwatch()
    drive(server.port, clients)
    took, spent = stopwatch() - began, sum(process.cpu_times()[:2]) - cpu
    return count / took, spent / count * 1e6


def _reserving(clients: int) -> tuple[float, float]:
    keys = Keys()
    each = RESERVATIONS // clients

    def client(number: int) -> Next:
        granted, ticket = itertools.count(), _ticket(number).encode()
        now = [next(granted)]

        def ask(reply: object) -> Command[Any] | None:
            if isinstance(reply, bytes):
                now[0] = next(granted)
            if now[0] == each:
                return None
            # A job's next attempt ends the hold of the one before, so these do not pile up.
            job_id = f"job{number}-{now[0] % 100}"
            return hold.reserve(keys, job_id=job_id, attempt=str(now[0]), ticket=ticket)

        return ask

    with short_folder() as folder, ValkeyServer(folder, appendonly=True) as server:
        with server.client() as admin:
            _limits(admin, keys)
            first = hold.reserve(keys, job_id="a", attempt="a", ticket=_ticket(0).encode())
            script.run(admin, first)
        return _measured(server, [client(n) for n in range(clients)], each * clients)


def _fetching(clients: int, want: int) -> tuple[float, float]:
    keys, got = Keys(), [0]
    owners = map(str, itertools.count())

    def client() -> Next:
        held: list[Lease] = []

        def ask(reply: object) -> Command[Any] | None:
            if reply is not None:
                taken = shape.read(reply).taken
                held[:] = [Lease(one.id, last[0]) for one in taken]
                got[0] += len(taken)
                if got[0] >= FETCHED - 64 * clients:
                    return None
            last[0] = next(owners)
            return jobs.fetch(
                keys, owner=last[0], lease_ms=15_000, want=want, queues=[QUEUE], acked=held
            )

        last = [""]
        return ask

    shape = jobs.fetch(keys, owner="", lease_ms=15_000, want=1, queues=[QUEUE])
    with short_folder() as folder, ValkeyServer(folder, appendonly=True) as server:
        with server.client(decode_responses=False) as admin:
            _limits(admin, keys)
            for first in range(0, FETCHED, 1_000):
                pairs = [_message(number) for number in range(first, first + 1_000)]
                script.run(admin, jobs.send(keys, QUEUE, pairs))
            empty = jobs.fetch(keys, owner="x", lease_ms=15_000, want=0, queues=["none"])
            script.run(admin, empty)
        rate, cpu_us = _measured(server, [client() for _ in range(clients)], FETCHED)
        return rate * got[0] / FETCHED, cpu_us * FETCHED / max(1, got[0])


def _message(number: int) -> tuple[str, bytes]:
    job_id = f"0192-{number}"
    text = f'{{"hg":"{job_id}","at":"{_ticket(number).encode()}","body":"{FILLING}"}}'
    return job_id, text.encode()
