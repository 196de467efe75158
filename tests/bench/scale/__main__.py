"""`python -m tests.bench scale [--only ROW,...] [--most N] [--plot SVG]`.

Each row makes more of one thing, and measures what a job and an idle second cost then: CPU of the
worker and of Valkey. The last column is the slope in a plot of both logarithms: 0 is flat, 1 is in
proportion.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headgate import Client
from tests import ROOT
from tests.bench.rig import Rig, rig, stopwatch
from tests.bench.scale import plot, states
from tests.bench.scale.scripts import scripts
from tests.bench.table import Table
from tests.support.child import wait_until

PROBES, LATENCY_MS, SPAN_S, IDLE_S, SETTLE_S = 4_000, 50, 6.0, 5.0, 3.0

Prepare = Callable[[Rig, Client, int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of which there is more and more. It ends with a worker started.

    `drains`: the jobs that it made are the ones measured; else further jobs are. `models`: the
    catalog has as many more.
    """

    what: str
    sizes: Sequence[int]
    prepare: Prepare
    drains: bool = False
    models: bool = False


ROWS = {
    "queued": Row("queued jobs", (20_000, 100_000, 1_000_000), states.queued, drains=True),
    "tenants": Row("tenants with jobs", (1, 10, 100, 1_000, 10_000), states.tenants, drains=True),
    "shut": Row("jobs in a paused pool", (1, 1_000, 10_000, 100_000), states.shut),
    "models": Row("models", (10, 100, 1_000), states.models, drains=True, models=True),
    "records": Row("ended jobs", (1, 100_000, 1_000_000, 10_000_000), states.old_records),
}
WORKERS = (1, 4, 16, 64)


@dataclass(slots=True)
class Point:
    """What was measured at one size. CPU-ms per job; per cent of a core while nothing is to do."""

    size: int
    worker_ms: float = math.nan
    redis_ms: float = math.nan
    idle_worker: float = math.nan
    idle_redis: float = math.nan


@dataclass(slots=True)
class Line:
    """All points of one row."""

    what: str
    points: list[Point] = field(default_factory=list)

    def slope(self, of: Callable[[Point], float]) -> float:
        """The slope of the best line through the points, both axes logarithmic."""
        found = [
            (math.log(one.size), math.log(of(one)))
            for one in self.points
            if of(one) > 0 and one.size > 0
        ]
        if len(found) < 2:
            return math.nan
        mean_x = sum(x for x, _ in found) / len(found)
        mean_y = sum(y for _, y in found) / len(found)
        width = sum((x - mean_x) ** 2 for x, _ in found)
        return sum((x - mean_x) * (y - mean_y) for x, y in found) / width


def main(arguments: list[str]) -> int:
    """The table has been printed, and the plot drawn."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench scale")
    names = ", ".join([*ROWS, "workers", "scripts"])
    parser.add_argument("--only", metavar="ROW,...", help=f"of {names}")
    parser.add_argument("--most", type=int, default=10_000_000, help="leave out larger sizes")
    parser.add_argument("--plot", type=Path, metavar="SVG")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",") if given.only else [*ROWS, "workers"]
    if unknown := set(wanted) - {*ROWS, "workers", "scripts"}:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {names}")
    if "scripts" in wanted:
        wanted.remove("scripts")
        _show(scripts(), given.markdown)
    if not wanted:
        return 0
    columns = ("", "worker, CPU-ms a job", "Valkey", "idle: worker", "Valkey", "slopes of a job")
    table = Table("the more there is", columns)
    lines = [
        _workers(table) if name == "workers" else _line(ROWS[name], given.most, table)
        for name in wanted
    ]
    _show(table, given.markdown)
    if given.plot:
        _draw([line for line in lines if len(line.points) > 1], given.plot)
    return 0


def _show(table: Table, is_markdown: bool) -> None:
    sys.stdout.write((table.markdown() if is_markdown else table.plain()) + "\n\n")


def _line(row: Row, most: int, table: Table) -> Line:
    line = Line(row.what)
    for size in row.sizes:
        if size <= most:
            line.points.append(point := _point(row, size))
            _add(table, line, point)
    return line


def _add(table: Table, line: Line, point: Point) -> None:
    slopes = ""
    if len(line.points) > 1:
        slopes = (
            f"{line.slope(lambda p: p.worker_ms):+.2f} / {line.slope(lambda p: p.redis_ms):+.2f}"
        )
    shown = [f"{one:.3f}" for one in (point.worker_ms, point.redis_ms)]
    shown += [f"{one:.2f} %" for one in (point.idle_worker, point.idle_redis)]
    cells = [one.replace("nan %", "-").replace("nan", "-") for one in (*shown, slopes)]
    table.add(f"{line.what}: {point.size:,}", *cells)


def _point(row: Row, size: int) -> Point:
    catalog = states.models_toml(size) if row.models else ""
    with (
        rig(latency_ms=LATENCY_MS, load_provider=True, catalog=catalog) as bench,
        Client(bench.settings) as client,
    ):
        row.prepare(bench, client, size)
        found = Point(size)
        if row.drains:
            wait_until(lambda: bench.ended() > 500, 120, "the worker to be warm")
            before, spent, began = bench.ended(), bench.spent(), stopwatch()
            while stopwatch() - began < SPAN_S:
                time.sleep(0.05)
            jobs, now = bench.ended() - before, bench.spent()
        else:
            bench.warm_up(client)
            before, spent, jobs = bench.ended(), bench.spent(), PROBES
            client.submit_many(bench.requests(PROBES))
            wait_until(lambda: bench.ended() - before == PROBES, 300, "all jobs have ended")
            now = bench.spent()
            time.sleep(SETTLE_S)
            found.idle_worker, found.idle_redis = _idle(bench)
        found.worker_ms = (now.workers - spent.workers) / jobs * 1000
        found.redis_ms = (now.redis - spent.redis) / jobs * 1000
        return found


def _idle(bench: Rig) -> tuple[float, float]:
    """What the worker and Valkey take while nothing is to do, in per cent of a core."""
    spent = bench.spent()
    time.sleep(IDLE_S)
    now = bench.spent()
    return (
        (now.workers - spent.workers) / IDLE_S * 100,
        (now.redis - spent.redis) / IDLE_S * 100,
    )


def _workers(table: Table) -> Line:
    """Workers that only fetch, in one process, while nothing is to do."""
    line = Line("idle workers")
    for size in WORKERS:
        with rig() as bench:
            words = [sys.executable, "-m", "tests.bench.scale.fleet", bench.valkey.url]
            with subprocess.Popen(
                [*words, str(size), str(IDLE_S)],
                stdout=subprocess.PIPE, text=True, cwd=ROOT, env=bench.variables,
            ) as fleet:  # fmt: skip
                assert fleet.stdout is not None
                assert fleet.stdout.readline() == "idle\n"
                before = bench.spent().redis
                all_s = float(fleet.stdout.readline())
                redis_s = bench.spent().redis - before
        point = Point(size, idle_worker=all_s / IDLE_S * 100, idle_redis=redis_s / IDLE_S * 100)
        line.points.append(point)
        _add(table, line, point)
    return line


def _draw(lines: Sequence[Line], path: Path) -> None:
    """Write what a job costs Valkey, by how much there is."""
    found = {
        f"{line.what} ({line.slope(lambda p: p.redis_ms):+.2f})": [
            (one.size, one.redis_ms) for one in line.points
        ]
        for line in lines
        if not math.isnan(line.points[0].redis_ms)
    }
    plot.write(path, found, x="how much there is (slope)", y="Valkey, CPU-ms a job")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
