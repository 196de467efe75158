"""`headgate health`: the state of models, pools, servers and workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.exit_codes import DONE, FAILED
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_note,
    print_pairs,
    print_table,
)
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.health import HealthReport
    from headgate.shared.admission.breakers import ModelHealth


@click.command()
@json_option
def health(as_json: bool) -> int:
    """Show the health of models, pools, servers and workers.

    The exit code is 1 if a model is down, no worker runs, jobs wait in a queue
    that no worker serves, Redis uses 90 % of its memory, or a disk is 95 %
    full. It is 3 if a server does not answer.

    \b
    calls, failed, latency
           of the last minute, which a note below names
    reason why the model is not healthy, and its last fault
    state  healthy   the model answers
           degraded  some calls fail, it is slow, or it failed lately
           down      its circuit breaker is open: no calls, except
                     one probe (every 60 s, HEADGATE_BREAKER_OPEN_S)
    gate   open      the pool's calls are slowed down
           shut      no call of the pool until the time in `until`

    `headgate resume model NAME` closes a breaker at once.
    """
    from headgate.producer.admin.health import check

    with open_session() as at:
        found = check(at)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)
    for worker, why in found.strays.items():
        print_note(f"worker {worker} {why}")
    for reason in found.down:
        print_note(f"down: {reason}")
    return FAILED if found.down else DONE


def _show(found: HealthReport) -> None:
    names = (
        "model", "state", "calls", "failed", "latency", "last fault", "reason", "probe in",
        "breaker", "key",
    )  # fmt: skip
    models = (
        (
            one.model, cells.state(one.state), one.calls, one.failures,
            cells.amount(None if one.latency_ms is None else f"{one.latency_ms:,.0f} ms"),
            _ago(one.fault_age_s), _reason(one),
            None if not one.retry_in_s else f"{one.retry_in_s:.0f} s",
            cells.state(one.breaker), one.key,
        )
        for one in found.models
    )  # fmt: skip
    print_table(names, models, optional=("key", "breaker", "probe in", "last fault", "latency"))
    if found.models and found.calls_since and found.calls_until:
        begin, end = found.calls_since[11:19], found.calls_until[11:19]
        print_note(f"calls, failed and latency are those from {begin} to {end} UTC")
    if found.gates:
        gates = (
            (one.pool, cells.state(one.state), one.why, one.until, one.key) for one in found.gates
        )
        print_table(("pool", "gate", "why", "until", "key"), gates, optional=("key",))
    space = found.space
    print_pairs([
        *found.servers.items(), ("workers", found.workers), ("memory of Redis", str(space.memory)),
        ("what takes it", space.memory.takers),
        *((f"disk of {disk.what}", str(disk)) for disk in space.disks),
    ])  # fmt: skip
    print_note(f"{found.not_asked} models of the catalog had no calls in the last 24 h")


def _reason(one: ModelHealth) -> str:
    """Return why the model is not healthy, with its last fault."""
    return "; ".join(text for text in (one.why, one.fault) if text)


def _ago(seconds: float | None) -> str | None:
    from headgate.shared.job.waiting_for import duration

    return None if seconds is None else f"{duration(seconds)} ago"
