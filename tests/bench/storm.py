"""`storm`: 1,000 jobs at a provider of which 17 % of the calls fail, in five ways.

Refusals, faults of two kinds, broken connections and answers that are none. What is measured is
how long the retries take, and how many calls a job costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from sqlalchemy import func, select

from headgate import Client
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, audit
from tests.bench.rig import rig
from tests.bench.table import Table
from tests.support.child import wait_until

JOBS, LATENCY_MS, LONGEST_S = 1000, 400, 600
MODEL, CALM_MODEL = "gpt-4o-mini", "gpt-4.1"
SHARES = {"429:retry-after=1": 0.03, "500": 0.05, "503": 0.04, "cut": 0.02, "garbage": 0.03}
FAULTS = ",".join(f"{fault}:model={MODEL}={share}" for fault, share in SHARES.items())
MOST_S, MOST_CALLS = 40.0, 1.35
"""What the storm may take at most, in seconds and in calls a job."""


@dataclass(frozen=True, slots=True)
class Storm:
    """What came of it: the seconds until the last job had ended, the calls, and the ends."""

    took_s: float
    calls: int
    statuses: Mapping[str, int]


def measure() -> Table:
    """Return the figures of one worker and of four."""
    title = f"{JOBS:,} jobs, 17 % of the calls fail in five ways"
    table = Table(title, ("workers", "seconds", "calls a job", "jobs that failed"))
    for workers in (1, 4):
        storm = _storm(workers)
        failed = JOBS - storm.statuses.get("succeeded", 0)
        table.add(f"{workers}", f"{storm.took_s:.1f}", f"{storm.calls / JOBS:.3f}", f"{failed}")
    table.note = f"wanted: at most {MOST_S:g} s and {MOST_CALLS:g} calls a job"
    return table


def _storm(workers: int) -> Storm:
    """Submit all jobs at once to workers that are warm; wait until all have ended."""
    flags = ["--latency-sigma", "0.3", "--fail", FAULTS, "--seed", "8"]
    with rig(latency_ms=LATENCY_MS, simulator_flags=flags) as bench:
        for _ in range(workers):
            bench.start_worker()
        with Client(bench.settings) as client:
            bench.warm_up(client, model=CALM_MODEL)
            requests = bench.requests(JOBS, model=MODEL, fallback=False)
            before, began = bench.ended(), monotonic()
            client.submit_many(requests)
            wait_until(lambda: bench.ended() - before == JOBS, LONGEST_S, "all jobs have ended")
            took_s = monotonic() - began
        return _storm_on_record(bench.database_url, took_s)


def _storm_on_record(database_url: str, took_s: float) -> Storm:
    """Count the calls and the ends that the record tells of."""
    engine = open_engine(database_url)
    calls = select(func.count()).select_from(attempts).where(attempts.c.model == MODEL)
    ends = select(audit.c.status, func.count()).where(audit.c.model == MODEL)
    try:
        with reading(engine) as connection:
            rows = connection.execute(ends.group_by(audit.c.status)).all()
            statuses = {row[0]: int(row[1]) for row in rows}
            return Storm(took_s, int(connection.scalar(calls) or 0), statuses)
    finally:
        engine.dispose()
