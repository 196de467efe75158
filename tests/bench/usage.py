"""How long it takes to tell who used what, with ten million jobs on record."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, text

from headgate.producer.usage.query import usage
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, snapshot, writing
from headgate.shared.database.usage_rollup import DAY_MS, lines_of, stale, sum_day
from headgate.shared.stats.sketch import bucket
from tests.bench.rig import durable_postgres, stopwatch
from tests.bench.table import Table
from tests.support.servers import short_folder

LINES, DAYS, SAMPLES = 10_000_000, 90, 1_000
TIMEOUT_S = 900.0
REPEATS = 5
ASKED = ("", "user", "model,day", "tenant,month", "batch", "user,model")

_FILL = """
INSERT INTO audit SELECT
 'job-' || n, CASE WHEN h % 50 = 0 THEN 'failed' ELSE 'succeeded' END, NULL, 'standard',
 't' || (u % 20), 'u' || u, CASE WHEN h % 3 = 0 THEN 'b' || (n * 90 / {lines}) || '-' || (u % 20)
 END, 'model-' || (h % 4), 'model-' || (h % 4), 'openai',
 CASE WHEN h % 5 = 1 THEN 'exact' END, {false}, 1, 0, 100 + h % 900, 0, 0, h % 500, 0,
 h % 1000000, h % 1000, at_ms, at_ms, at_ms, 5, latency_ms, NULL, latency_bin
 FROM (SELECT n, (n * 48271) % 2147483647 AS h, (n * 48271) % 2147483647 / 7 % 500 AS u,
  {begin_ms} + n * {span_ms} / {lines} AS at_ms FROM ({numbers}) AS numbers) AS made
 JOIN samples ON samples.i = h % {samples}
"""
_NUMBERS = {
    "postgresql": "SELECT generate_series(CAST({first} AS bigint), {last}) AS n",
    "sqlite": (
        "WITH RECURSIVE c(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM c WHERE n < {last})"
        " SELECT n FROM c"
    ),
}


def measure(lines: int = LINES) -> Table:
    """On both databases: the days summed once, then reports from sums and today's lines."""
    title = f"{lines:,} jobs of {DAYS} days, 500 users, 20 tenants, 4 models"
    table = Table(title, ("", "SQLite", "PostgreSQL"))
    took = [_measure(lines, name) for name in ("sqlite", "postgresql")]
    for name in took[0]:
        table.add(name, *(figures[name] for figures in took))
    return table


def _measure(lines: int, name: str) -> dict[str, str]:
    with _record(name) as engine:
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        _fill(engine, lines, now_ms)
        today_ms = now_ms // DAY_MS * DAY_MS
        found = {}
        with snapshot(engine) as connection:
            days = stale(connection, 0, today_ms)
            today = sum(lines_of(connection, today_ms, now_ms + 1).values())
        spent = []
        for day in days:
            began = stopwatch()
            assert sum_day(engine, day, now_ms)
            spent.append(stopwatch() - began)
        found["a day summed, once"] = f"{statistics.median(spent):.2f} s"
        with reading(engine) as connection:
            rows = connection.scalar(text("SELECT count(*) FROM usage_days"))
        found["rows of sums; lines of today"] = f"{rows:,}; {today:,}"
        for by in ASKED:
            times = []
            for _ in range(REPEATS):
                began = stopwatch()
                report = usage(engine, by)
                times.append(stopwatch() - began)
                assert report.total.requests == lines
            shown = f"usage --by {by}" if by else "usage, the total alone"
            found[f"{shown} ({len(report.rows)} rows)"] = f"{statistics.median(times):.2f} s"
    return found


@contextmanager
def _record(name: str) -> Iterator[Engine]:
    with short_folder() as folder:
        if name == "sqlite":
            yield from _opened(f"sqlite:///{folder / 'headgate.db'}")
        else:
            with durable_postgres(Path(folder) / "postgres") as url:
                yield from _opened(url)


def _opened(url: str) -> Iterator[Engine]:
    engine = open_engine(url, TIMEOUT_S)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


def _fill(engine: Engine, lines: int, now_ms: int) -> None:
    """Audit lines spread evenly over the days until now; their latencies are lognormal."""
    chance = random.Random(1)  # noqa: S311 (no secret)
    samples = []
    for i in range(SAMPLES):
        latency_ms = int(800 * chance.lognormvariate(0, 0.7)) + 1
        samples.append({"i": i, "latency_ms": latency_ms, "latency_bin": bucket(latency_ms)})
    is_sqlite = engine.dialect.name == "sqlite"
    with writing(engine) as connection:
        columns = "i INTEGER PRIMARY KEY, latency_ms BIGINT, latency_bin INTEGER"
        connection.execute(text(f"CREATE TABLE samples ({columns})"))
        words = "INSERT INTO samples VALUES (:i, :latency_ms, :latency_bin)"
        connection.execute(text(words), samples)
    step = 500_000
    for first in range(0, lines, step):
        numbers = _NUMBERS[engine.dialect.name].format(
            first=first, last=min(first + step, lines) - 1
        )
        words = _FILL.format(
            numbers=numbers, lines=lines, samples=SAMPLES, begin_ms=now_ms - DAYS * DAY_MS,
            span_ms=DAYS * DAY_MS, false="0" if is_sqlite else "FALSE",
        )  # fmt: skip
        with writing(engine) as connection:
            connection.execute(text(words))
    with reading(engine) as connection:
        connection.execute(text("ANALYZE" if is_sqlite else "VACUUM ANALYZE"))
