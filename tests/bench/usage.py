"""How long it takes to tell who used what, with ten million jobs on record."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import process_time

import psutil
from sqlalchemy import Engine, text

from headgate.producer.usage.query import usage
from headgate.producer.usage.report import UsageQuery, UsageReport
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, snapshot, writing
from headgate.shared.database.usage_blocks import extend_part, stale_months, sum_month
from headgate.shared.database.usage_rollup import DAY_MS, day_of, stale, sum_day
from headgate.shared.stats.sketch import bucket
from tests.bench.rig import durable_postgres
from tests.bench.table import Table
from tests.support.servers import short_folder

QUARTER_MS = 900_000

LINES, DAYS, SAMPLES = 10_000_000, 90, 1_000
TIMEOUT_S = 900.0
REPEATS = 3
ASKED: tuple[tuple[str, UsageQuery], ...] = (
    ("", {}),
    ("model", {}),
    ("user", {}),
    ("batch", {}),
    ("user,model", {}),
    ("user,model,month", {}),
    ("model,day", {}),
    ("user", {"batch": "b40-3"}),
    ("user,model", {"since": "45d"}),
    ("user,day", {}),
    ("user,batch", {}),
)

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
    """On both databases, at the last minute of a day: what is rolled up, then reports of it."""
    title = f"{lines:,} jobs of {DAYS} days, 500 users, 20 tenants, 4 models: CPU-s"
    table = Table(title, ("", "SQLite", "PostgreSQL"))
    table.note = "CPU of the asking process and, on PostgreSQL, of the server. Medians."
    took = [_measure(lines, name) for name in ("sqlite", "postgresql")]
    for name in took[0]:
        table.add(name, *(figures[name] for figures in took))
    return table


def _measure(lines: int, name: str) -> dict[str, str]:
    with _record(name) as engine:
        now_ms = (int(datetime.now(UTC).timestamp() * 1000) // DAY_MS + 1) * DAY_MS - 60_000
        _fill(engine, lines, now_ms)
        return roll_up(engine, now_ms) | ask(engine, lines)


def roll_up(engine: Engine, now_ms: int) -> dict[str, str]:
    """Roll up all that is over, as workers do, and today up to half an hour ago."""
    today_ms = now_ms // DAY_MS * DAY_MS
    with snapshot(engine) as connection:
        days = stale(connection, 0, today_ms)
    today, times = day_of(now_ms), len(days)
    day = _median_of(engine, lambda: sum_day(engine, days.pop(), now_ms), times)
    with snapshot(engine) as connection:
        months = stale_months(connection, today)
    month = _median_of(engine, lambda: sum_month(engine, months.pop()), len(months))
    extend_part(engine, today, now_ms - 4 * QUARTER_MS)
    part = _median_of(engine, lambda: extend_part(engine, today, now_ms - 2 * QUARTER_MS), 1)
    return {"a day, once": day, "a month, once": month, "half an hour of today, once": part}


def ask(engine: Engine, lines: int) -> dict[str, str]:
    """Ask for each report some times; return how long it took and how many rows it has."""
    found = {}
    for by, asked in ASKED:
        report = usage(engine, by, **asked)
        assert asked or report.total.requests == lines
        took = _median_of(engine, partial(_is_again, engine, by, asked, report), REPEATS)
        words = [f"--by {by}"] if by else ["without --by"]
        words += [f"--{name} {value}" for name, value in asked.items()]
        found[f"{' '.join(words)} ({len(report.rows):,} rows)"] = took
    return found


def _is_again(engine: Engine, by: str, asked: UsageQuery, report: UsageReport) -> bool:
    return len(usage(engine, by, **asked).rows) == len(report.rows)


def _median_of(engine: Engine, act: Callable[[], bool], times: int) -> str:
    """Return the median of the CPU-seconds of so many calls; each must return True."""
    spent = []
    for _ in range(times):
        began = _cpu_s(engine)
        assert act()
        spent.append(_cpu_s(engine) - began)
    return f"{statistics.median(spent):.2f}"


def _cpu_s(engine: Engine) -> float:
    """Return the CPU-seconds of this process, and of PostgreSQL's for its one connection."""
    if engine.dialect.name == "sqlite":
        return process_time()
    with reading(engine) as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    return process_time() + sum(psutil.Process(pid).cpu_times()[:2])


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
