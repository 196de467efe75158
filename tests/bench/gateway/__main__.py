"""`python -m tests.bench gateway [--litellm VENV] [--rounds N] [--only PART,...]`.

One process of the gateway, one worker, Valkey and SQLite, with a provider that costs next to
nothing. What is compared takes turns. With --litellm, LiteLLM's proxy runs beside it, from a
virtual environment that holds `litellm[proxy]`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from headgate import Client
from tests.bench.gateway.measures import FirstTokens, Paced, Rates, median_cpu, open_streams
from tests.bench.gateway.servers import Door, Gateway, LiteLLM, ready_in_s
from tests.bench.rig import Rig, rig
from tests.bench.table import Table

LATENCY_MS, ROUNDS, SECONDS, STREAMS, STARTS = 50, 5, 4.0, 1_000, 5
OURS, THEIRS = "Headgate's gateway", "LiteLLM's proxy"
CALLS = {OURS: 3_000, THEIRS: 600}
PARTS = ("latency", "rate", "tokens", "memory", "start")


@contextmanager
def doors(bench: Rig, venv: Path | None) -> Iterator[dict[str, Door]]:
    """The gateways of this run, which are up."""
    with ExitStack() as stack:
        found: dict[str, Door] = {OURS: Gateway(bench)}
        if venv is not None:
            found[THEIRS] = LiteLLM(bench, venv)
        for door in found.values():
            door.start(120)
            stack.callback(door.kill)
        yield found


@contextmanager
def warm_rig(latency_ms: float, *, concurrency: int = 500, gap_ms: float = 20) -> Iterator[Rig]:
    """A rig with a worker that has answered jobs."""
    with rig(
        latency_ms=latency_ms, load_provider=True, gap_ms=gap_ms, concurrency=concurrency
    ) as bench:
        bench.start_worker()
        with Client(bench.settings) as client:
            bench.warm_up(client)
        yield bench


def latency(venv: Path | None, rounds: int) -> Table:
    """Return what each way adds to a call of 50 ms."""
    columns = ("", "added, p50 / p99", "CPU-ms: gateway / worker / Valkey")
    title = f"100 calls a second of {LATENCY_MS} ms (median of {rounds})"
    table, found = Table(title, columns), Paced()
    with warm_rig(LATENCY_MS) as bench, doors(bench, venv) as there:
        for _ in range(rounds):
            uvloop.run(found.round(bench, there, SECONDS))
    for name, spread in found.ways.items():
        cpu = median_cpu(found.cpu[name])
        table.add(name, spread.over(found.straight), cpu.words())
    over = found.ways[OURS].over(found.ways["library"])
    table.add(f"{OURS} over the library", over, "")
    table.note = f"straight: {found.straight.at(0.5):.1f} / {found.straight.at(0.99):.1f} ms"
    return table


def rate(venv: Path | None, rounds: int) -> Table:
    """Return how many calls a second each gateway answers."""
    columns = ("", "calls/s", "CPU-ms: gateway / worker / Valkey")
    table, found = Table(f"at full speed (median of {rounds})", columns), Rates()
    with warm_rig(0) as bench, doors(bench, venv) as there:
        for _ in range(rounds):
            for at_once in (10, 100):
                uvloop.run(found.round(bench, there, at_once, CALLS))
    for (name, at_once), rates in found.rates.items():
        cpu = median_cpu(found.cpu[name, at_once])
        table.add(f"{name}, {at_once} at once", f"{statistics.median(rates):,.0f}", cpu.words())
    if venv is not None:
        times = [
            statistics.median(
                a / b for a, b in zip(found.rates[OURS, n], found.rates[THEIRS, n], strict=True)
            )
            for n in (10, 100)
        ]
        table.note = f"times LiteLLM's: {times[0]:.1f} at 10, {times[1]:.1f} at 100"
    return table


def tokens(venv: Path | None, rounds: int) -> Table:
    """Return how much later the first word of a stream comes than from the provider."""
    columns = ("", "first word later by, p50 / p99")
    table, found = Table(f"25 streams a second (median of {rounds})", columns), FirstTokens()
    with warm_rig(LATENCY_MS) as bench, doors(bench, venv) as there:
        for _ in range(rounds):
            uvloop.run(found.round(bench, there, SECONDS))
    for name, spread in found.ways.items():
        table.add(name, spread.over(found.straight))
    table.note = f"straight: {found.straight.at(0.5):.1f} / {found.straight.at(0.99):.1f} ms"
    return table


def memory(venv: Path | None, _rounds: int) -> Table:
    """Return the memory of each gateway, idle and with open streams."""
    table = Table("memory", ("", "at rest", f"{STREAMS:,} open streams", "of them ended well"))
    with (
        warm_rig(LATENCY_MS, concurrency=STREAMS + 200, gap_ms=600) as bench,
        doors(bench, venv) as there,
    ):
        for name, door in there.items():
            at_rest = door.rss_mb()
            rss_mb, well = uvloop.run(open_streams(door, STREAMS))
            table.add(name, f"{at_rest:,.0f} MB", f"{rss_mb:,.0f} MB", f"{well:,}")
    return table


def start(venv: Path | None, _rounds: int) -> Table:
    """Return how long each gateway takes to be ready."""
    table = Table(f"start (median of {STARTS})", ("", "ready in"))
    with warm_rig(LATENCY_MS) as bench:
        table.add(OURS, f"{ready_in_s(Gateway(bench), STARTS):.2f} s")
        if venv is not None:
            table.add(THEIRS, f"{ready_in_s(LiteLLM(bench, venv), STARTS):.2f} s")
    return table


MEASURES = dict(zip(PARTS, (latency, rate, tokens, memory, start), strict=True))


def main(arguments: list[str]) -> int:
    """Print a table of each part."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench gateway", description=__doc__)
    parser.add_argument("--litellm", type=Path, metavar="VENV", help="measure its proxy, too")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    venv: Path | None = given.litellm
    if venv is not None and not (venv / "bin/litellm").exists():
        sys.stderr.write(f"LiteLLM is left out: there is no {venv}/bin/litellm\n")
        venv = None
    elif venv is None:
        sys.stderr.write("LiteLLM is left out: name its environment with --litellm VENV\n")
    for part in given.only.split(","):
        sys.stderr.write(f"{part}:\n")
        table = MEASURES[part](venv, given.rounds)
        shown = table.markdown() if given.markdown else table.plain()
        sys.stdout.write(shown + "\n\n")
        sys.stdout.flush()
    return 0
