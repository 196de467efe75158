"""`headgate up`: the whole system on this machine, in the foreground."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from producer.cli.ends import DONE, INTERRUPTED, say

if TYPE_CHECKING:
    from producer.local import Local

_TEND_EVERY_S = 0.25


@click.command()
@click.option("--simulate", is_flag=True, help="Answer by a simulated provider; needs no key.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
    help="Worker processes.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="P",
    help="Port of the simulated provider (default: a free one).",
)  # fmt: skip
@click.option("--flower", is_flag=True, help="Run Flower as well, on the loopback.")
def up(simulate: bool, workers: int, port: int | None, flower: bool) -> int:
    """Run everything on this machine until Ctrl-C, which lets running jobs finish."""
    from producer.cli.stop import Stop
    from producer.local import Local
    from shared import settings

    if port is not None and not simulate:
        raise click.UsageError("--port is the simulated provider's; say --simulate, too")
    in_force = settings.load()
    flags = ["--port", str(port)] if port else []
    with Stop("stopping: what is in flight may finish (Ctrl-C again: at once)") as stop:
        local = Local(
            in_force,
            tell=say,
            hear=_hear,
            workers=workers,
            simulator=flags if simulate else None,
            flower=flower,
            log_level=in_force.log_level,
            at_once=stop.wanted,
        )
        try:
            local.start()
            if not simulate:
                _warn_without_keys(local)
            if local.wait_for_workers():
                _show(local)
            elif not stop.wanted():
                say("the workers do not answer yet; see their lines")
            while not stop.wanted():
                local.tend()
                time.sleep(_TEND_EVERY_S)
        finally:
            local.at_once = stop.at_once
            local.stop()
    say("stopped")
    return DONE if stop.signal == signal.SIGTERM else INTERRUPTED


def _hear(name: str, words: str) -> None:
    """A line of a process stands on standard error, with its name before it."""
    with suppress(BrokenPipeError, ValueError):
        sys.stderr.write(f"{name:<10} | {words}\n")
        sys.stderr.flush()


def _show(local: Local) -> None:
    places = local.places()
    width = max(len(name) for name, _ in places)
    say("everything runs; Ctrl-C stops it")
    for name, where in places:
        sys.stderr.write(f"  {name:<{width}}  {where}\n")
    sys.stderr.flush()


def _warn_without_keys(local: Local) -> None:
    from shared import settings

    if local.installation is None:
        return
    providers = local.installation.catalog.providers.values()
    names = sorted({name for provider in providers for name in provider.api_key_env})
    if not local.settings.simulator_url and not any(map(settings.secret, names)):
        say(
            "no provider's key is set, so every job will fail: set one of "
            f"{', '.join(names)}, or use --simulate"
        )
