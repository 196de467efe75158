"""Who gets the next token: interactive jobs behind a mountain of bulk; tenants side by side."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from sqlalchemy import select

from headgate import Client
from headgate.producer.errors import JobTimeout
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, jobs
from tests.bench.governor.load import Span, tell_errors, warm_up, workers_for
from tests.bench.governor.prompts import requests
from tests.bench.governor.vendors import Vendor, openai
from tests.bench.rig import Rig
from tests.bench.table import Table
from tests.support.child import wait_until

BULK, TRICKLE_PER_S = 50_000, 5.0
BACKLOGS = (10, 22, 46, 100, 215, 464, 1_000, 2_154, 4_642, 10_000)
WEIGHTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Start:
    """The first attempt of a job. `tokens`: what the provider charged. Times in Unix ms."""

    at_ms: int
    submitted_ms: int
    priority: str
    tenant: str
    tokens: int


def interactive(span: Span) -> Table:
    """How long interactive jobs wait behind 50,000 bulk jobs, and what bulk loses by it."""
    vendor = openai(bound_by="rpm")
    title = f"{BULK:,} bulk jobs on a saturated pool, {span.seconds:g} s each"
    columns = ("", "bulk jobs/s", "interactive jobs/s", "their wait p50 / p95 / max")
    found = Table(title, columns)
    with workers_for(vendor) as bench, Client(bench.settings) as client:
        client.submit_many(_made(vendor, BULK, priority="bulk"))
        time.sleep(span.settle_s)
        alone_ms = time.time() * 1000
        time.sleep(span.seconds)
        beside_ms = time.time() * 1000
        ids = _trickle(client, vendor, span.seconds)
        end_ms = time.time() * 1000
        _all_ended(client, ids)
        starts = _starts(bench, vendor)
        tell_errors(bench)
    waits = sorted(s.at_ms - s.submitted_ms for s in starts if s.priority == "interactive")
    for name, first_ms, last_ms in (
        ("bulk alone", alone_ms, beside_ms),
        ("bulk and interactive", beside_ms, end_ms),
    ):
        seen = Counter(s.priority for s in starts if first_ms <= s.at_ms < last_ms)
        rates = [seen[one] / (last_ms - first_ms) * 1000 for one in ("bulk", "interactive")]
        shown = "-"
        if name != "bulk alone":
            at = [waits[min(len(waits) - 1, int(len(waits) * q))] for q in (0.5, 0.95, 1)]
            shown = " / ".join(f"{wait:,} ms" for wait in at)
        found.add(name, f"{rates[0]:.1f}", f"{rates[1]:.1f}", shown)
    if len(waits) < len(ids):
        found.note = f"{len(ids) - len(waits)} interactive jobs had not started at the end."
    return found


def fair(span: Span) -> Table:
    """Ten tenants with backlogs of 10 to 10,000 jobs; three with weights; by tokens charged."""
    found = Table("tenants side by side, by tokens charged", ("", "jobs started", "figure"))
    backlogs = {f"t{place}": count for place, count in enumerate(BACKLOGS)}
    starts = _side_by_side(backlogs, span)
    for name, index, count in _phases(starts, backlogs):
        found.add(name, str(count), f"Jain index {index:.4f}")
    overlay = "".join(f"[tenants.w{weight}]\nweight = {weight}\n" for weight in WEIGHTS)
    count = int(openai().per_s * span.whole_s)
    starts = _side_by_side({f"w{weight}": count for weight in WEIGHTS}, span, overlay)
    served = _tokens(starts)
    whole = sum(served.values()) or 1
    for weight in WEIGHTS:
        name = f"w{weight}"
        share, due = served[name] / whole, weight / sum(WEIGHTS)
        started = sum(one.tenant == name for one in starts)
        words = f"{share:.2%} of the tokens, {share / due - 1:+.2%} off its share"
        found.add(f"weight {weight} of {sum(WEIGHTS)}", str(started), words)
    return found


def _side_by_side(backlogs: Mapping[str, int], span: Span, overlay: str = "") -> list[Start]:
    """Jobs in the order in which they started, from a moment on in which all stood in line."""
    vendor = openai()
    with workers_for(vendor, overlay=overlay) as bench, Client(bench.settings) as client:
        warm_up(client, vendor)
        paused = f"pool/{vendor.pool}"
        with bench.client() as server:
            server.sadd(Keys().paused(), paused)
            for tenant, count in backlogs.items():
                client.submit_many(_made(vendor, count, tenant=tenant))
            wait_until(lambda: waiting(server) == sum(backlogs.values()), 60, "all stand in line")
            server.srem(Keys().paused(), paused)
        time.sleep(span.whole_s)
        starts = [one for one in _starts(bench, vendor) if one.tenant in backlogs]
        tell_errors(bench)
    return starts


def waiting(client: redis.Redis) -> int:
    """How many jobs stand in the rooms of all pools."""
    counts: Any = client.hvals(Keys().waiting_queues())
    return sum(int(count) for count in counts)


def _tokens(starts: Iterable[Start]) -> Counter[str]:
    served: Counter[str] = Counter()
    for one in starts:
        served[one.tenant] += one.tokens
    return served


def jain(amounts: Sequence[float]) -> float:
    """1 where all got the same, 1/n where one got all."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 0.0


def _phases(
    starts: Sequence[Start], backlogs: Mapping[str, int]
) -> Iterator[tuple[str, float, int]]:
    """The index while all have work, then while all but one have, and so on, as far as it went."""
    left, first = Counter(backlogs), 0
    for place, one in enumerate(starts, 1):
        left[one.tenant] -= 1
        if left[one.tenant] and place < len(starts):
            continue
        running = [tenant for tenant in backlogs if left[tenant] or tenant == one.tenant]
        served = _tokens(starts[first:place])
        if len(running) > 1 and served:
            index = jain([served[tenant] for tenant in running])
            yield f"{len(running)} tenants have work", index, place - first
        first = place


def _made(vendor: Vendor, count: int, **fields: Any) -> list[Any]:
    """Requests; equal ones of two tenants are two jobs, since nothing of them is cached."""
    return requests(count, model=vendor.model, max_tokens=vendor.max_tokens, **fields)


def _trickle(client: Client, vendor: Vendor, seconds: float) -> list[str]:
    """Interactive jobs, submitted one by one at even times; their ids."""
    made = _made(vendor, int(seconds * TRICKLE_PER_S), priority="interactive", tenant="urgent")
    began_s, ids = time.monotonic(), []
    for number, one in enumerate(made):
        time.sleep(max(0.0, began_s + number / TRICKLE_PER_S - time.monotonic()))
        ids.append(client.submit(**one).id)
    return ids


def _starts(bench: Rig, vendor: Vendor) -> list[Start]:
    """The attempts that were answered, by the moment in which they began."""
    engine = open_engine(bench.database_url)
    query = (
        select(
            attempts.c.started_at_ms, jobs.c.submitted_at_ms, jobs.c.priority, jobs.c.tenant,
            attempts.c.input_tokens,
        )
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.state == "answered")
        .order_by(attempts.c.started_at_ms)
    )  # fmt: skip
    try:
        with reading(engine) as connection:
            return [
                Start(*row[:4], row[4] + vendor.max_tokens) for row in connection.execute(query)
            ]
    finally:
        engine.dispose()


def _all_ended(client: Client, ids: Sequence[str]) -> None:
    """The jobs have ended, or ten seconds have passed."""
    with suppress(JobTimeout, TimeoutError):
        for job_id in ids[-3:]:
            client.result(job_id, wait=True, timeout_s=10)
