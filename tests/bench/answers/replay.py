"""A day of arrivals in minutes: what it costs, and what the cache, sharing and routing save of it.

How time is scaled. The day runs `speed` times as fast, and so do the lifetimes of cached answers,
which are all that depends on the day's clock: the setting and every rule of the catalog are divided
by `speed`, but never below the one second that a lifetime has at least. At 300 that is right for
lifetimes of five minutes and more. What is not scaled: the five seconds for which any answer stands
by for double clicks; an answer that is kept for five minutes (3 % of the arrivals) may therefore
serve longer than it should. So the table also says what a cache without faults would save with the
unscaled lifetimes in the day's own time, from the list of arrivals alone: a figure that is right
must be near it. A provider's 10 ms stand for an answer of three seconds.

Money is the ledger's, and must be the provider's own bill to the last digit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import func, select

from headgate import Client
from headgate.shared.cache.ttl import CachePolicy, CacheRuleIndex
from headgate.shared.catalog import catalog
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, audit, jobs
from headgate.shared.job.request import request_from
from tests.bench.answers.day import Arrival, spared
from tests.bench.rig import Rig, rig
from tests.bench.table import Table
from tests.support.child import wait_until

MODEL = "gpt-4o"
LATENCY_MS, TICK_S, CACHE_TTL_S = 10, 0.01, 1800
LONGEST = 100_000
"""Tokens of an answer that nobody cuts: `max_tokens` alone says how long it is."""

PICO = Decimal("1e-12")


@dataclass(frozen=True, slots=True)
class Day:
    """What came of one replay. `unequal`: cached answers that differ from what was paid for."""

    usd: Decimal
    billed_usd: Decimal
    calls: int
    cached: dict[str, int]
    models: dict[str, int]
    unequal: int
    failed: int

    @property
    def spared(self) -> int:
        """Jobs that were answered without a call of their own."""
        return self.cached.get("exact", 0) + self.cached.get("shared", 0)


def replay(arrivals: Sequence[Arrival], speed: float) -> Table:
    """Three rows: all off, cache and sharing, and routing too."""
    columns = ("", "cost", "saved", "calls", "from cache", "shared", "unequal answers")
    table = Table(f"{len(arrivals):,} arrivals, {MODEL}, {speed:g} times as fast", columns)
    plain = _run(arrivals, None, {"model": MODEL, "cache": {"mode": "off"}, "share": False})
    kept = _run(arrivals, speed, {"model": MODEL})
    routed = _run(arrivals, speed, {"model": "auto"})
    for name, day in (
        (f"everything off, all on {MODEL}", plain),
        ("cache and sharing", kept),
        ("routing too", routed),
    ):
        assert day.usd == day.billed_usd, f"{name}: {day.usd} on record, {day.billed_usd} billed"
        assert not day.failed, f"{name}: {day.failed} jobs failed"
        table.add(
            name, f"${day.usd:.4f}", f"{1 - day.usd / plain.usd:.1%}", f"{day.calls:,}",
            f"{day.cached.get('exact', 0):,}", f"{day.cached.get('shared', 0):,}",
            f"{day.unequal} of {day.spared:,}",
        )  # fmt: skip
    chosen = sorted(routed.models.items(), key=lambda one: -one[1])
    table.note = (
        f"A cache without faults would save {_ideal(arrivals):.1%} of the first row in the day's "
        f"own time. Models chosen: {', '.join(f'{name} {n:,}' for name, n in chosen)}."
    )
    return table


def _run(arrivals: Sequence[Arrival], speed: float | None, fields: dict[str, Any]) -> Day:
    """One replay on empty servers; without `speed` all at once."""
    flags = ["--output-tokens", str(LONGEST), "--output-sigma", "0"]
    further = {"HEADGATE_CACHE_TTL_S": str(_scaled(CACHE_TTL_S, speed or 1))}
    with rig(
        latency_ms=LATENCY_MS, simulator_flags=flags, catalog=_rules(speed or 1), further=further
    ) as bench:
        bench.start_worker()
        with Client(bench.settings) as client:
            _submit(client, arrivals, speed, fields)
            wait_until(lambda: bench.ended() == len(arrivals), 600, "all jobs have ended")
        return _day(bench)


def _submit(
    client: Client, arrivals: Sequence[Arrival], speed: float | None, fields: dict[str, Any]
) -> None:
    """Every arrival was submitted at its moment, to within a tick."""
    requests: list[Any] = [
        {
            "prompt": one.prompt, "params": {"max_tokens": one.max_tokens}, "tenant": one.tenant,
            "user": one.user, "priority": one.priority, **fields,
        }
        for one in arrivals
    ]  # fmt: skip
    if speed is None:
        client.submit_many(requests)
        return
    began, sent = time.monotonic(), 0
    while sent < len(arrivals):
        now_s = arrivals[0].at_s + (time.monotonic() - began) * speed
        due = sent
        while due < len(arrivals) and arrivals[due].at_s <= now_s:
            due += 1
        if due > sent:
            client.submit_many(requests[sent:due])
            sent = due
        time.sleep(TICK_S)


def _day(bench: Rig) -> Day:
    """What the record and the provider say."""
    stats = bench.simulator.stats()
    engine = open_engine(bench.database_url)
    try:
        with reading(engine) as connection:

            def counts(column: Any) -> dict[str, int]:
                query = select(column, func.count()).where(column.is_not(None)).group_by(column)
                return {name: int(n) for name, n in connection.execute(query)}

            spent = connection.scalar(select(func.sum(attempts.c.cost_pico_usd)))
            statuses = counts(audit.c.status)
            results = list(connection.scalars(select(jobs.c.result)))
            asked = dict(iter(connection.execute(select(jobs.c.id, jobs.c.envelope)).tuples()))
            return Day(
                usd=int(spent or 0) * PICO,
                billed_usd=Decimal(stats["money"]["billed_usd"]),
                calls=stats["answered"],
                cached=counts(audit.c.cached),
                models=counts(audit.c.model_used),
                unequal=_unequal([orjson.loads(one) for one in results], asked),
                failed=sum(n for status, n in statuses.items() if status != "succeeded"),
            )
    finally:
        engine.dispose()


def _unequal(results: Sequence[dict[str, Any]], asked: dict[str, str]) -> int:
    """How many cached answers no call gave to the same prompt of the same tenant and model."""

    def question(result: dict[str, Any]) -> tuple[str, str, str]:
        request = orjson.loads(asked[result["id"]])["request"]
        return request["tenant"], request["prompt"], result["model_used"]

    paid: dict[tuple[str, str, str], set[str]] = {}
    for one in results:
        if one["cached"] is None:
            paid.setdefault(question(one), set()).add(one["content"])
    return sum(
        one["content"] not in paid.get(question(one), ())
        for one in results
        if one["cached"] is not None
    )


def _scaled(ttl_s: int, speed: float) -> int:
    return max(1, round(ttl_s / speed)) if ttl_s else 0


def _rules(speed: float) -> str:
    """The catalog's rules of cache, as lines of TOML, in scaled time."""
    return "".join(
        f'[cache.rules."{name}"]\nttl_s = {_scaled(rule.ttl_s, speed)}\n'
        for name, rule in catalog.load().cache.rules.items()
    )


def _ideal(arrivals: Sequence[Arrival]) -> float:
    """The share saved by our own lifetimes, from the list alone; $2.50 and $10 a million tokens."""
    keeping = CachePolicy(CacheRuleIndex.of(catalog.load().cache.rules), CACHE_TTL_S)
    known: dict[str, float] = {}

    def ttl_s(one: Arrival) -> float:
        if one.prompt not in known:
            known[one.prompt] = keeping.lifetime(request_from({"prompt": one.prompt})).ttl_s
        return known[one.prompt]

    return spared(arrivals, ttl_s, lambda one: len(one.prompt) / 4 * 2.5 + one.max_tokens * 10)
