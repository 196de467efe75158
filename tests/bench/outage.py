"""`python -m tests.bench outage [--plot PNG] [--seconds S]`: a primary that is down under load.

Jobs come at a steady rate and name a model at OpenAI, with one at Anthropic behind it. For a minute
every call to the first is answered with 503. The breaker's settings are the defaults.
The plot needs matplotlib (`pip install '.[bench]'`); the table does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from headgate import Client
from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import attempts, audit
from tests.bench.rig import Rig, rig
from tests.bench.table import Table
from tests.support.child import wait_until

PRIMARY, SECOND = "gpt-4o-mini", "claude-haiku-4-5"
WORKERS, PER_S, TICK_S, LATENCY_MS = 4, 50, 0.1, 400
BEFORE_S, AFTER_S = 20.0, 70.0
"""The breaker looks again a minute after it opened, so the end of the outage is met late."""


@dataclass
class Timeline:
    """Per second of the drill: jobs submitted, answers by model, attempts that failed."""

    down_s: float
    up_s: float
    submitted: Counter[int] = field(default_factory=Counter)
    primary: Counter[int] = field(default_factory=Counter)
    second: Counter[int] = field(default_factory=Counter)
    failed: Counter[int] = field(default_factory=Counter)


@dataclass
class Drill:
    """What came of it. `recovered_s`: from the end of the outage to the first answer after it."""

    timeline: Timeline
    jobs: int
    statuses: dict[str, int]
    attempts: int
    refused: int
    fallbacks: int
    first_fallback_s: float
    recovered_s: float
    worst_ms: int
    longest_gap_s: int


def main(arguments: list[str]) -> int:
    """The drill's table has been printed, and the plot drawn; 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench outage")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="where to draw the timeline")
    parser.add_argument("--seconds", type=float, default=60, help="length of the outage (60)")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    drill = _drill(given.seconds)
    table = _table(drill, given.seconds)
    sys.stdout.write((table.markdown() if given.markdown else table.plain()) + "\n")
    if given.plot:
        _draw(drill.timeline, given.plot)
    kept = drill.statuses == {"succeeded": drill.jobs} and drill.attempts < 1.2 * drill.jobs
    return 0 if kept else 1


def _drill(down_s: float) -> Drill:
    """The primary was well, then down, then well again."""
    with rig(latency_ms=LATENCY_MS, simulator_flags=["--latency-sigma", "0.3"]) as bench:
        for _ in range(WORKERS):
            bench.start_worker()
        with Client(bench.settings) as client:
            bench.warm_up(client)
            bench.warm_up(client, model=SECOND)  # else its SDK is imported when the outage begins
            began = time.time()
            sent = _submit(client, bench, BEFORE_S)
            _script(bench, [{"match": "", "fault": f"503:model={PRIMARY}"}])
            down_at_s = time.time() - began
            sent += _submit(client, bench, down_s)
            _script(bench, [])
            up_at_s = time.time() - began
            sent += _submit(client, bench, AFTER_S)
            wait_until(lambda: _ended(bench, began) == sent, 300, "all jobs have ended")
        return _told(bench, began, Timeline(down_at_s, up_at_s), sent)


def _submit(client: Client, bench: Rig, seconds: float) -> int:
    """Jobs were submitted at the rate for so long; how many."""
    end, sent = time.monotonic() + seconds, 0
    began = time.monotonic()
    while (now := time.monotonic()) < end:
        due = int((now - began) * PER_S) - sent
        if due:
            client.submit_many(
                bench.requests(due, model=PRIMARY, fallback=[SECOND], cache={"mode": "off"})
            )
            sent += due
        time.sleep(TICK_S)
    return sent


def _script(bench: Rig, rules: list[dict[str, str]]) -> None:
    """The provider has these faults from now on."""
    url, body = f"{bench.simulator.url}/_script", json.dumps(rules).encode()
    urllib.request.urlopen(url, data=body, timeout=5).close()  # noqa: S310 (loopback)


def _ended(bench: Rig, since_s: float) -> int:
    query = select(func.count()).where(audit.c.submitted_at_ms >= int(since_s * 1000))
    engine = open_engine(bench.database_url)
    try:
        with reading(engine) as connection:
            return int(connection.scalar(query) or 0)
    finally:
        engine.dispose()


def _told(bench: Rig, began_s: float, timeline: Timeline, sent: int) -> Drill:
    """What the record says of all that was submitted since."""
    since_ms = int(began_s * 1000)
    mine = audit.c.submitted_at_ms >= since_ms
    tries = select(attempts.c.model, attempts.c.state, attempts.c.settled_at_ms).where(
        attempts.c.started_at_ms >= since_ms
    )
    engine = open_engine(bench.database_url)
    try:
        with reading(engine) as connection:
            ends = connection.execute(
                select(
                    audit.c.status, audit.c.model_used, audit.c.submitted_at_ms,
                    audit.c.finished_at_ms,
                ).where(mine)
            ).all()  # fmt: skip
            tried = connection.execute(tries).all()
    finally:
        engine.dispose()

    def second_of(at_ms: int) -> int:
        return (at_ms - since_ms) // 1000

    for _status, model, submitted_ms, finished_ms in ends:
        timeline.submitted[second_of(submitted_ms)] += 1
        by = timeline.second if model == SECOND else timeline.primary
        by[second_of(finished_ms)] += 1
    wrong = [at_ms for _model, state, at_ms in tried if state != "answered"]
    timeline.failed.update(second_of(at_ms) for at_ms in wrong)
    answered = sorted((at_ms - since_ms) / 1000 for _, state, at_ms in tried if state == "answered")
    fell = [(at_ms - since_ms) / 1000 for _s, model, _, at_ms in ends if model == SECOND]
    back = [
        (at_ms - since_ms) / 1000
        for model, state, at_ms in tried
        if model == PRIMARY and state == "answered" and (at_ms - since_ms) / 1000 > timeline.up_s
    ]
    return Drill(
        timeline=timeline,
        jobs=sent,
        statuses=dict(Counter(status for status, *_ in ends)),
        attempts=len(tried),
        refused=len(wrong),
        fallbacks=len(fell),
        first_fallback_s=min(fell, default=float("nan")) - timeline.down_s,
        recovered_s=min(back, default=float("nan")) - timeline.up_s,
        worst_ms=max(finished - submitted for _s, _m, submitted, finished in ends),
        longest_gap_s=int(max(b - a for a, b in itertools.pairwise(answered)) + 0.5),
    )


def _table(drill: Drill, down_s: float) -> Table:
    title = f"primary down for {down_s:g} s, {PER_S} jobs/s, {WORKERS} workers"
    table = Table(title, ("", ""))
    ended = ", ".join(f"{n:,} {status}" for status, n in drill.statuses.items())
    table.add("jobs", f"{drill.jobs:,}: {ended}")
    table.add("attempts per job", f"{drill.attempts / drill.jobs:.3f}")
    table.add("failed attempts", f"{drill.refused:,}")
    table.add("answered by the fallback", f"{drill.fallbacks / drill.jobs:.1%}")
    table.add("first of them", f"{drill.first_fallback_s:.1f} s after the outage began")
    table.add("the primary answers again", f"{drill.recovered_s:.1f} s after it ended")
    table.add("longest time without an answer", f"{drill.longest_gap_s} s")
    table.add("slowest job", f"{drill.worst_ms / 1000:.1f} s")
    return table


def _draw(timeline: Timeline, path: Path) -> None:
    """The timeline stands at `path`."""
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        sys.stderr.write("no plot: matplotlib is not installed; pip install '.[bench]'\n")
        return
    last = max(timeline.primary | timeline.second)
    seconds = list(range(last))
    _, axes = plt.subplots(figsize=(9, 3.6), dpi=110)
    axes.axvspan(timeline.down_s, timeline.up_s, color="0.9", label=f"{PRIMARY} is down")
    axes.stackplot(
        seconds,
        [timeline.primary[n] for n in seconds],
        [timeline.second[n] for n in seconds],
        labels=[f"answered by {PRIMARY}", f"by {SECOND}"],
        colors=["#4878a8", "#e0a84c"],
    )
    submitted = [timeline.submitted[n] for n in seconds]
    axes.plot(seconds, submitted, color="black", linewidth=0.8, label="jobs submitted")
    failed = [timeline.failed[n] for n in seconds]
    axes.plot(seconds, failed, color="#c03030", linewidth=1.4, label="attempts that failed")
    axes.set(xlabel="seconds", ylabel="a second", xlim=(0, last - 1), ylim=(0, PER_S * 1.8))
    axes.legend(loc="upper right", ncols=2, fontsize=8)
    plt.tight_layout()
    plt.savefig(path)
