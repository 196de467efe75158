"""How much of a provider's limit is used, and how often it has to refuse."""

from __future__ import annotations

import json
import shutil
import urllib.request
from dataclasses import replace
from itertools import pairwise

from tests.bench.governor.load import Run, Span, Turn, saturated
from tests.bench.governor.vendors import Vendor, anthropic, openai
from tests.bench.rig import Rig
from tests.bench.table import Table

COLUMNS = (
    "", "used of the limit", "refused per 100 accepted", "most in 1 s", "CPU-ms per job",
    "refused before", "failed jobs",
)  # fmt: skip
STRANGER = 1 / 3


def table(title: str, span: Span) -> Table:
    """An empty table of this kind."""
    note = (
        "Refused before: from the start of cold workers to the measured time."
        " Most in 1 s: over what a second of the limit is, at any moment; the provider itself"
        " lets a burst of one second through."
    )
    return Table(f"{title}, {span.seconds:g} s after {span.settle_s:g} s", COLUMNS, note=note)


def add(found: Table, name: str, run: Run, since_s: float | None = None, words: str = "") -> None:
    """The row of one run. `since_s`: only from then on; refusals count for the whole time."""
    used = run.use(since_s)
    found.add(
        f"{name}{words}",
        f"{used.share:.2%}",
        f"{run.refused_per_100:.2f}",
        f"{used.peak:.0%}",
        f"{run.cpu_ms:.2f}",
        str(run.refused_before),
        str(run.failed),
    )


def exact(span: Span) -> Table:
    """(a) Estimates that are exact."""
    found = table("exact estimates", span)
    for vendor in (openai(), openai(bound_by="rpm"), anthropic()):
        add(found, vendor.name, saturated(vendor, span))
    return found


def off(span: Span) -> Table:
    """(b) Estimates that are 20 % off, all alike or at random; answers of unknown length."""
    found = table("estimates 20 % off", span)
    for vendor in (
        openai().wrong_by(1.2),
        openai().wrong_by(0.8, 1.2),
        anthropic().wrong_by(1.2),
        anthropic().wrong_by(0.8, 1.2),
    ):
        add(found, vendor.name, saturated(vendor, span))
    vendor = anthropic(bound_by="output_tpm")
    add(found, f"{vendor.name}, lengths lognormal", saturated(vendor, span))
    return found


def stranger(span: Span) -> Table:
    """(c) Somebody else uses a third of the limit under the same key."""
    found = table("a stranger under the same key asks for a third of the limit", span)
    for vendor in (openai(), anthropic()):
        add(found, vendor.name, saturated(vendor, span, stranger=STRANGER))
    return found


def halved(span: Span) -> Table:
    """(d) The provider halves its limits, and nobody tells us."""
    found = table("limit halved at a third of the time", span)
    for vendor in (openai(), anthropic()):
        run = saturated(vendor, span, turn=_halving(vendor))
        after = [
            call.at_s - run.turned_s
            for call in run.calls
            if not call.accepted and run.turned_s <= call.at_s < run.last_s
        ]
        halves = {name: limit // 2 for name, limit in vendor.limits.items()}
        less = replace(vendor, limits=halves)
        told = f", {len(after)} refusals, the last {max(after, default=0):.1f} s after"
        add(found, vendor.name, replace(run, vendor=less), run.turned_s + 5, told)
    found.note = f"Use: of the new limit, from 5 s after the change. {found.note}"
    return found


def _halving(vendor: Vendor) -> Turn:
    def turn(bench: Rig) -> None:
        body = json.dumps({name: limit // 2 for name, limit in vendor.limits.items()}).encode()
        url = f"{bench.simulator.url}/_limits"
        urllib.request.urlopen(url, data=body, timeout=5).close()  # noqa: S310 (loopback)

    return turn


def restarted(span: Span) -> Table:
    """(e) Redis is killed and comes back, with its files or without."""
    found = table("Redis killed with -9 at a third of the time and started again", span)
    quick = {"HEADGATE_SWEEP_S": "2"}
    for vendor, empty in ((openai(), False), (openai(), True), (anthropic(), True)):
        run = saturated(vendor, span, turn=_emptied if empty else _killed, further=quick)
        again = [c.at_s for c in run.calls if c.accepted and c.at_s > run.turned_s + 0.5]
        longest = max((later - sooner for sooner, later in pairwise(again)), default=0.0)
        told = f", {'empty' if empty else 'with its files'}, longest pause {longest:.1f} s"
        add(found, vendor.name, run, run.turned_s, told)
    found.note = f"Use and most in 1 s: from the kill on. {found.note}"
    return found


def _killed(bench: Rig) -> None:
    bench.valkey.kill()
    bench.valkey.start()


def _emptied(bench: Rig) -> None:
    bench.valkey.kill()
    shutil.rmtree(bench.valkey.folder / "appendonlydir", ignore_errors=True)
    bench.valkey.start()
