"""What Redis pays for a job: CPU-ms of the server process, and where they go, by kind of pool.

A real worker drains the jobs, 500 in flight, with a provider of 50 ms. The CPU is that of Valkey's
own process, its file on disk and its sockets included, from the first submission to the end of the
last job. The note is from runs of their own, in which the server also logs each call: microseconds
of the wall clock, longer on a busy machine.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from headgate import Client
from headgate.shared.broker import script
from headgate.shared.broker.include import FOLDER
from tests.bench.rig import Rig, rig
from tests.bench.table import Table

JOBS, ROUNDS, LOGGED = 5_000, 3, 2_000
IN_FLIGHT, LATENCY_MS = 500, 50

MODEL = "gpt-4o-mini"
LIMITED = """
[pools."openai/gpt-4o-mini"]
rpm = 600_000
tpm = 600_000_000
"""
CALLERS = f"""{LIMITED}
[tenants.acme]
rpm = 500_000
tpm = 500_000_000
budget = {{ usd_per_day = "100000", usd_per_month = "1000000" }}
[users."acme/ann"]
rpm = 400_000
budget = {{ usd_per_day = "50000" }}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of pool. `catalog`: TOML laid over the built-in one; `fields`: of each request."""

    name: str
    catalog: str = ""
    fields: dict[str, str] = field(default_factory=dict)


KINDS = (
    Kind("unlimited pool"),
    Kind("pool with rpm and tpm", LIMITED),
    Kind("with tenant, user and budgets", CALLERS, {"tenant": "acme", "user": "ann"}),
)


def measure() -> Table:
    """One row per kind of pool; medians of the rounds."""
    columns = ("", "Redis CPU-ms per job", "scripts", "commands, scripts' own included")
    title = f"Redis per job, {IN_FLIGHT} in flight, {JOBS:,} jobs"
    table = Table(f"{title} (median of {ROUNDS}, least to most)", columns)
    notes = []
    for kind in KINDS:
        with (
            rig(
                latency_ms=LATENCY_MS,
                concurrency=IN_FLIGHT,
                load_provider=True,
                catalog=kind.catalog,
            ) as bench,
            Client(bench.settings) as client,
        ):
            bench.start_worker()
            fields = {"model": MODEL, **kind.fields}
            bench.warm_up(client, **fields)
            _add(table, kind.name, [_drained(bench, client, fields) for _ in range(ROUNDS)])
            notes.append(f"{kind.name}: {_shares(bench, client, fields)}")
    table.note = "Scripts, calls per job and microseconds per job:\n" + "\n".join(notes)
    return table


def _drained(bench: Rig, client: Client, fields: dict[str, str]) -> tuple[float, float, float]:
    """CPU-ms, scripts and commands per job of one drain."""
    with bench.client() as own:
        own.config_resetstat()
        found = bench.drain(client, JOBS, **fields)
        stats: Any = own.info("commandstats")
    calls = {name: one["calls"] for name, one in stats.items()}
    scripts = calls.get("cmdstat_evalsha", 0) + calls.get("cmdstat_eval", 0)
    return found.redis_ms, scripts / JOBS, sum(calls.values()) / JOBS


def _add(table: Table, name: str, found: list[tuple[float, float, float]]) -> None:
    cpu, scripts, commands = zip(*found, strict=True)
    shown = f"{statistics.median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f})"
    more = (f"{statistics.median(figures):.2f}" for figures in (scripts, commands))
    table.add(name, shown, *more)


@cache
def _names() -> dict[str, str]:
    """The name of each script by its SHA-1."""
    return {script.compose(path.stem, (), (), bool).sha: path.stem for path in FOLDER.glob("*.lua")}


def _shares(bench: Rig, client: Client, fields: dict[str, str]) -> str:
    """Calls and microseconds per job of what took most, by the server's own log of its calls."""
    with bench.client() as own:
        own.config_set("slowlog-max-len", 100_000)
        own.config_set("slowlog-log-slower-than", 0)
        own.slowlog_reset()
        bench.drain(client, LOGGED, **fields)
        own.config_set("slowlog-log-slower-than", -1)
        entries: Any = own.slowlog_get(100_000)
    spent: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry in entries:
        verb, _, rest = entry["command"].decode("utf-8", "replace").partition(" ")
        name = _names().get(rest.partition(" ")[0], "other") if verb == "EVALSHA" else verb
        spent[name][0] += 1
        spent[name][1] += entry["duration"]
    most = sorted(spent.items(), key=lambda item: -item[1][1])[:8]
    return ", ".join(f"{name} {n / LOGGED:.3f} {us / LOGGED:.0f}" for name, (n, us) in most)
