"""`headgate health`: models, breakers, pools, servers and workers; exit 1 if anything is down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, say
from headgate.producer.cli.terminal.output import document, json_option, pairs, rows
from headgate.producer.cli.terminal.session import opened

if TYPE_CHECKING:
    from headgate.producer.admin.health import HealthReport


@click.command()
@json_option
def health(as_json: bool) -> int:
    """Show how models, pools, servers and workers do; exit with 1 if anything is down.

    A model is down while its circuit breaker is open: after failures in a row nobody asks it, but
    one probe a minute. It is degraded while it fails in part, is slow, or has failed of late.
    """
    from headgate.producer.admin.health import standing

    with opened() as at:
        found = standing(at)
    if as_json:
        document(found.as_json())
    else:
        _show(found)
    for words in found.down:
        say(f"down: {words}")
    return FAILED if found.down else DONE


def _show(found: HealthReport) -> None:
    names = (
        "model", "state", "breaker", "calls", "failed", "latency", "last fault", "probe in", "key",
        "why",
    )  # fmt: skip
    models = (
        (
            one.model, one.state, one.breaker, one.calls, one.failures,
            None if one.latency_ms is None else f"{one.latency_ms:.0f} ms",
            _ago(one.fault_age_s), None if not one.retry_in_s else f"{one.retry_in_s:.0f} s",
            one.key, one.why,
        )
        for one in found.models
    )  # fmt: skip
    rows(names, models, optional=("key", "latency", "last fault", "probe in"))
    if found.gates:
        gates = ((one.pool, one.state, one.why, one.until, one.key) for one in found.gates)
        rows(("pool", "gate", "why", "until", "key"), gates, optional=("key",))
    pairs([*found.servers.items(), ("workers", found.workers)])
    say(f"{found.not_asked} models of the catalog were not asked within a day")


def _ago(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.0f} s ago"
