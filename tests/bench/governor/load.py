"""A saturated pool: four workers, more jobs than the provider lets through, and a clock."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import func, select

from headgate import Client
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import audit
from tests import ROOT
from tests.bench.governor import log
from tests.bench.governor.log import Call, Use
from tests.bench.governor.prompts import lengths, requests
from tests.bench.governor.vendors import LATENCY_MS, Vendor
from tests.bench.rig import Rig, rig
from tests.support.child import ChildProcess

WORKERS = 4
SPARE = 1.25
"""Jobs submitted, over those that the provider could let through in the time."""


@dataclass(frozen=True, slots=True)
class Span:
    """How long a measurement takes: `settle_s` are left out, then `seconds` count."""

    seconds: float
    settle_s: float

    @property
    def whole_s(self) -> float:
        """From the submission to the end."""
        return self.seconds + self.settle_s


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run. Times in Unix seconds; `turned_s`: when something was changed.

    `refused`, `accepted`: without the stranger's calls. `refused_before`: from the cold
    start on, with the stranger's. `failed`: jobs that ended otherwise than with an answer.
    """

    vendor: Vendor
    calls: list[Call]
    first_s: float
    last_s: float
    turned_s: float
    cpu_ms: float
    refused: int
    accepted: int
    failed: int
    refused_before: int

    def use(self, first_s: float | None = None) -> Use:
        """Of the whole measured time, or from a later moment on."""
        return log.use(self.calls, self.vendor, first_s or self.first_s, self.last_s)

    @property
    def refused_per_100(self) -> float:
        """Refusals that our workers met, for each 100 of their calls that were accepted."""
        return 100 * self.refused / max(1, self.accepted)


Turn = Callable[[Rig], None]


@contextmanager
def workers_for(
    vendor: Vendor, further: dict[str, str] | None = None, overlay: str = ""
) -> Iterator[Rig]:
    """A rig with four workers whose provider enforces the limits of `vendor`.

    `overlay`: more for the catalog. `further`: more of the environment.
    """
    flags, catalog = vendor.simulator_flags, vendor.catalog + overlay
    with rig(
        latency_ms=LATENCY_MS, simulator_flags=flags, catalog=catalog, further=further
    ) as bench:
        for _ in range(WORKERS):
            bench.start_worker()
        yield bench


def saturated(
    vendor: Vendor,
    span: Span,
    *,
    turn: Turn | None = None,
    stranger: float = 0.0,
    further: dict[str, str] | None = None,
) -> Run:
    """A run with exactly this load. `turn` happens at a third of the measured time.

    `stranger`: the share of the limit that somebody else tries to use under the same key.
    """
    with workers_for(vendor, further) as bench, Client(bench.settings) as client:
        strange = bench.folder / "stranger.log"
        if stranger:
            bench.stack.enter_context(_stranger(bench, vendor, stranger, strange))
        warm_up(client, vendor)
        jobs = int(vendor.per_s * span.whole_s * SPARE)
        made = requests(jobs, model=vendor.model, max_tokens=vendor.max_tokens, off=vendor.off)
        client.submit_many(made)
        time.sleep(span.settle_s)
        first_s, cpu_s = time.time(), bench.cpu_s()
        if turn is not None:
            time.sleep(span.seconds / 3)
        turned_s = time.time()
        if turn is not None:
            turn(bench)
        time.sleep(max(0.0, first_s + span.seconds - time.time()))
        last_s, cpu_s = time.time(), bench.cpu_s() - cpu_s
        for child in bench.children:
            child.signal(signal.SIGKILL)  # what waits in them must not count
        for child in bench.children:
            child.kill()
        time.sleep(0.5)  # the provider logs the calls that were cut
        calls = log.read(bench.simulator.log_path)
        seen = log.between(calls, first_s, last_s)
        theirs = [ok for at_s, ok in _logged(strange) if first_s <= at_s < last_s]
        accepted = sum(call.accepted for call in seen) - sum(theirs)
        refused = sum(not call.accepted for call in seen) - sum(not ok for ok in theirs)
        before = sum(not call.accepted and call.at_s < first_s for call in calls)
        failed = _failed(bench)
        tell_errors(bench)
    return Run(
        vendor, calls, first_s, last_s, turned_s, cpu_s * 1000 / max(1, accepted),
        refused, accepted, failed, before,
    )  # fmt: skip


def warm_up(client: Client, vendor: Vendor, jobs: int = 200) -> None:
    """Every worker has answered jobs, most likely: SDKs are imported, connections open."""
    made = requests(
        jobs, model=vendor.model, max_tokens=vendor.max_tokens, off=vendor.off, tenant="warm"
    )
    for job_id in client.submit_many(made):
        client.result(job_id, wait=True, timeout_s=60)


def tell_errors(bench: Rig) -> None:
    """What the workers complained of is on standard error, the first lines of it."""
    for child in bench.children:
        wrong = ("ERROR", "Traceback")
        lines = [line for line in child.log().splitlines() if any(word in line for word in wrong)]
        for line in lines[:3]:
            sys.stderr.write(f"    {line[:300]}\n")


def _stranger(bench: Rig, vendor: Vendor, share: float, path: Path) -> ChildProcess:
    drawn = lengths(random.Random(2))  # noqa: S311  repeatable, not secret
    sample = [next(drawn) for _ in range(5_000)]
    measures = [
        vendor.limits[measure] / 60
        / (sum(vendor.charged(measure, one, vendor.max_tokens) for one in sample) / len(sample))
        for measure in vendor.limits
    ]  # fmt: skip
    dialect = vendor.pool.partition("/")[0]
    argv = [sys.executable, "-m", "tests.bench.governor.stranger", dialect, bench.simulator.url]
    argv += [vendor.model, str(vendor.max_tokens), str(min(measures) * share), str(path)]
    return _Killed(argv, log_path=bench.folder / "stranger.err", cwd=ROOT)


class _Killed(ChildProcess):
    stop_signal = signal.SIGKILL


def _logged(path: Path) -> list[tuple[float, bool]]:
    if not path.exists():
        return []
    words = [line.split() for line in path.read_text().splitlines()]
    return [(float(one[0]), one[1] == "200") for one in words if len(one) == 2]


def _failed(bench: Rig) -> int:
    engine = open_engine(bench.database_url)
    try:
        with reading(engine) as connection:
            query = select(func.count()).select_from(audit).where(audit.c.status != "succeeded")
            return int(connection.scalar(query) or 0)
    finally:
        engine.dispose()


def cpu_s(processes: list[psutil.Process]) -> float:
    """CPU seconds of these processes and all that they started."""
    total = 0.0
    for process in processes:
        for one in (process, *process.children(recursive=True)):
            total += sum(one.cpu_times()[:2])
    return total
