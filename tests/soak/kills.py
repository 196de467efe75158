"""The kills: each target in each of its ways, in an order that a seed decides."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, jobs
from tests.soak.stage import LEASE_S, MORTAL, Stage
from tests.support.child import ChildProcess
from tests.support.outages import frozen

WAYS: dict[str, tuple[str, ...]] = {
    "worker": ("kill", "frozen past its lease", "kill", "term", "frozen a moment"),
    "valkey": ("kill", "frozen", "term"),
    "postgresql": ("kill", "frozen", "stop"),
    "batch": ("kill", "frozen", "int"),
    "flood": ("kill", "frozen", "term"),
}
FROZEN_S, MOMENT_S = 3.0, LEASE_S / 5
ENDED_WELL = (0, -signal.SIGTERM)
"""The second: told to end while it was still starting, with nothing in its hands."""

DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """What was done, and how many attempts it may have left without an answer on record."""

    target: str
    way: str
    may_be_unknown: int = 0
    fault: str | None = None


def deck(seed: int, targets: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Targets and ways without end: every target once before any comes again, ways likewise."""
    chance = random.Random(seed)  # noqa: S311  (nothing secret)
    waiting: dict[str, list[str]] = {target: [] for target in targets}
    while True:
        for target in chance.sample(targets, len(targets)):
            if not waiting[target]:
                waiting[target] = chance.sample(WAYS[target], len(WAYS[target]))
            yield target, waiting[target].pop()


def kill(stage: Stage, target: str, way: str) -> Kill:
    """It was done, and everything runs again."""
    acts: dict[str, Callable[[Stage, str], Kill]] = {
        "worker": _worker,
        "valkey": _valkey,
        "postgresql": _postgres,
        "batch": _batch,
        "flood": _flood,
    }
    return acts[target](stage, way)


def _worker(stage: Stage, way: str) -> Kill:
    stage.supervised = False
    try:
        return _worker_in(stage, way)
    finally:
        stage.supervised = True


def _worker_in(stage: Stage, way: str) -> Kill:
    worker = stage.mortal
    if way == "term":
        worker.signal(signal.SIGTERM)
        until = time.monotonic() + DRAIN_S
        while worker.running and time.monotonic() < until:
            stage.live(0.2)
        code = worker.exit_code()
        worker.kill()
        worker.start()
        told = None if code in ENDED_WELL else f"a worker told to end ended with {code}"
        return Kill("worker", way, fault=told)
    began = time.monotonic()
    worker.freeze()
    stage.live(0.3)  # what it has sent is in the tables by now
    may = _in_flight(stage)
    match way:
        case "kill":
            worker.kill()
            stage.live(1)
            may = max(may, _in_flight(stage))  # on a busy machine what it has sent comes later
            worker.start()
        case "frozen a moment":
            stage.live(MOMENT_S)
            worker.thaw()
            if time.monotonic() - began < LEASE_S / 3:  # else it was no moment
                may = 0
        case _:
            stage.live(LEASE_S * 2.2)
            worker.thaw()
    return Kill("worker", way, may)


def _in_flight(stage: Stage) -> int:
    """Attempts of the mortal worker that stand open."""
    query = (
        select(func.count())
        .select_from(attempts.join(jobs, attempts.c.job_id == jobs.c.id))
        .where(attempts.c.state == "open", jobs.c.worker.like(f"{MORTAL}@%"))
    )
    with reading(stage.engine) as connection:
        return int(connection.scalar(query) or 0)


def _valkey(stage: Stage, way: str) -> Kill:
    match way:
        case "frozen":
            _freeze(stage, stage.valkey, LEASE_S * 1.2)
        case "term":
            stage.valkey.stop()
            stage.live(1)
            stage.valkey.start()
        case _:
            stage.valkey.kill()
            stage.live(1)
            stage.valkey.start()
    return Kill("valkey", way)


def _postgres(stage: Stage, way: str) -> Kill:
    server = stage.postgres
    assert server is not None
    match way:
        case "frozen":
            with frozen(server):
                stage.live(FROZEN_S)
        case "stop":
            server.stop(30)
            stage.live(1)
            server.start()
        case _:
            server.kill()
            stage.live(1)
            server.start()
    return Kill("postgresql", way)


def _batch(stage: Stage, way: str) -> Kill:
    batch = stage.batches.process
    if batch is None or not batch.running:
        return Kill("batch", "was between two runs")
    if way == "frozen":
        _freeze(stage, batch, FROZEN_S)
    else:
        stage.batches.provoked = True
        batch.signal(signal.SIGINT if way == "int" else signal.SIGKILL)
        stage.live(1)
    return Kill("batch", way)


def _flood(stage: Stage, way: str) -> Kill:
    flood = stage.flood
    match way:
        case "frozen":
            _freeze(stage, flood, FROZEN_S)
        case "term":
            flood.stop(30)
            flood.start()
        case _:
            flood.kill()
            flood.start()
    return Kill("flood", way)


def _freeze(stage: Stage, child: ChildProcess, seconds: float) -> None:
    child.freeze()
    stage.live(seconds)
    child.thaw()
