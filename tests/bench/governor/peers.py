"""What else one could use, at the same limit in the same run: requests a minute, prompts alike."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import psutil
from celery import Celery

from tests import ROOT
from tests.bench.governor import log
from tests.bench.governor.load import WORKERS, Span, cpu_s, saturated
from tests.bench.governor.prompts import requests
from tests.bench.governor.vendors import LATENCY_MS, Vendor, openai
from tests.bench.rig import Rig, rig
from tests.bench.table import Table
from tests.support.child import ChildProcess, wait_until

PREFORK, GREENLETS, IN_FLIGHT = 10, 50, 50
STRATEGY = "usage-based-routing-v2"


def peers(span: Span) -> Table:
    """A row for each; those that are not installed are told of in the note."""
    vendor = openai(bound_by="rpm")
    columns = ("", "used of the limit", "refused per 100 accepted", "most in 1 s", "CPU-ms per job")
    rpm = vendor.limits["rpm"]
    title = f"beside others: {rpm:,} requests a minute, {WORKERS} workers, {span.seconds:g} s"
    found, missing = Table(f"{title} after {span.settle_s:g} s", columns), []
    ours = saturated(vendor, span)
    used = ours.use()
    _add(found, "Headgate", used.share, ours.refused_per_100, used.peak, ours.cpu_ms)
    part = f"rate_limit of {rpm // WORKERS}/m"
    _celery(found, f"Celery, prefork ({PREFORK}), {part}", vendor, span, WORKERS, _prefork)
    whole = f"rate_limit of {rpm}/m"
    _celery(found, f"Celery, prefork ({PREFORK}), {whole}", vendor, span, 1, _prefork)
    if importlib.util.find_spec("gevent"):
        _celery(found, f"Celery, gevent ({GREENLETS}), {part}", vendor, span, WORKERS, _gevent)
    else:
        missing.append("gevent")
    if importlib.util.find_spec("litellm"):
        _litellm(found, vendor, span)
    else:
        missing.append("litellm")
    found.note = (
        "Celery counts its rate_limit in each worker for itself: the limit must be cut into equal"
        " parts, or each worker takes the whole of it."
    )
    if missing:
        found.note += f" Not installed, so left out: {', '.join(missing)}."
    return found


def _add(found: Table, name: str, share: float, refused: float, peak: float, cpu_ms: float) -> None:
    found.add(name, f"{share:.2%}", f"{refused:.2f}", f"{peak:.0%}", f"{cpu_ms:.2f}")


Command = list[str]


def _prefork(number: int) -> Command:
    return [*_celery_worker(number), "-P", "prefork", "-c", str(PREFORK)]


def _gevent(number: int) -> Command:
    return [*_celery_worker(number), "-P", "gevent", "-c", str(GREENLETS)]


def _celery_worker(number: int) -> Command:
    argv = [sys.executable, "-m", "celery", "-q", "-A", "tests.bench.governor.stock", "worker"]
    return [*argv, "--loglevel", "ERROR", "-n", f"stock{number}@%h"]


def _celery(
    found: Table,
    name: str,
    vendor: Vendor,
    span: Span,
    parts: int,
    command: Callable[[int], Command],
) -> None:
    """Each worker is told `limit / parts` a minute."""
    with _provider(vendor) as bench:
        app = Celery(broker=bench.valkey.url, set_as_current=False)
        try:
            children = _start(bench, [command(number) for number in range(WORKERS)])
            wait_until(
                lambda: len(app.control.ping(timeout=1) or []) == WORKERS, 60, "the workers answer"
            )
            app.control.rate_limit(
                "stock.limited", f"{vendor.limits['rpm'] // parts}/m", reply=True, timeout=2
            )
            for one in requests(_count(vendor, span), model="any", max_tokens=vendor.max_tokens):
                app.send_task(
                    "stock.limited", args=[one["prompt"], vendor.max_tokens], ignore_result=True
                )
            _measure(found, name, bench, vendor, span, children)
        finally:
            app.close()


def _litellm(found: Table, vendor: Vendor, span: Span) -> None:
    with _provider(vendor) as bench:
        commands = []
        for number in range(WORKERS):
            words = [bench.simulator.url, "127.0.0.1", str(bench.valkey.port)]
            words += [str(vendor.limits["rpm"]), str(vendor.limits["tpm"])]
            words += [str(vendor.max_tokens), f"part{number}", str(IN_FLIGHT)]
            commands.append([sys.executable, "-m", "tests.bench.governor.router", *words])
        children = _start(bench, commands)
        path = bench.simulator.log_path
        wait_until(lambda: b'"sent"' in path.read_bytes(), 60, "the router asks")
        _measure(found, f"LiteLLM's Router, Redis, {STRATEGY}", bench, vendor, span, children)


def _provider(vendor: Vendor) -> AbstractContextManager[Rig]:
    # LiteLLM otherwise asks the network for prices when it is imported.
    further = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    return rig(latency_ms=LATENCY_MS, simulator_flags=vendor.simulator_flags, further=further)


def _count(vendor: Vendor, span: Span) -> int:
    return int(vendor.per_s * (span.whole_s + 10) * 1.5)


def _start(bench: Rig, commands: Sequence[Command]) -> list[ChildProcess]:
    children = []
    for number, argv in enumerate(commands):
        path = bench.folder / f"peer{number}.log"
        child = ChildProcess(argv, log_path=path, env=bench.variables, cwd=ROOT)
        child.start()
        bench.stack.callback(child.kill)
        children.append(child)
    return children


def _measure(
    found: Table,
    name: str,
    bench: Rig,
    vendor: Vendor,
    span: Span,
    children: Sequence[ChildProcess],
) -> None:
    """The row of a peer that runs and has work."""
    processes = [psutil.Process(child.pid) for child in children]
    time.sleep(span.settle_s)
    first_s, before = time.time(), cpu_s(processes)
    time.sleep(span.seconds)
    last_s, spent = time.time(), cpu_s(processes) - before
    for process in processes:
        for one in (*process.children(recursive=True), process):
            one.kill()
    time.sleep(0.5)  # the provider logs the calls that were cut
    used = log.use(log.read(bench.simulator.log_path), vendor, first_s, last_s)
    refused = 100 * used.refused / max(1, used.accepted)
    _add(found, name, used.share, refused, used.peak, spent * 1000 / max(1, used.accepted))
