"""`headgate up`: the whole system on this machine, in the foreground."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import DONE, INTERRUPTED, say

if TYPE_CHECKING:
    from headgate.producer.local.stack import LocalStack

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
    from headgate.producer.cli.terminal.interrupt import Interrupt
    from headgate.producer.installation import require_home
    from headgate.producer.local.stack import LocalStack
    from headgate.shared import settings

    if port is not None and not simulate:
        raise click.UsageError("--port is the simulated provider's; say --simulate, too")
    in_force = settings.load()
    flags = ["--port", str(port)] if port else []
    require_home(in_force)
    words = "stopping: what is in flight may finish (Ctrl-C again: at once)"
    with _alone(in_force.home_path), Interrupt(words) as stop:
        local = LocalStack(
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


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """No other `up` runs in this home while inside; raises WrongUse if one does."""
    import os

    from headgate.shared.errors import WrongUse

    path = home / "up.lock"
    # The file stays when the lock goes: one that is removed could be locked by two.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read(20).strip() or "not told yet"
            remedy = f"`headgate up` runs here already (pid {pid}): stop it, or set another home"
            raise WrongUse("HEADGATE_HOME", str(home), remedy) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _hear(name: str, words: str) -> None:
    """A line of a process stands on standard error, with its name before it."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{name:<10} | {words}\n")
        sys.stderr.flush()


def _show(local: LocalStack) -> None:
    places = local.places()
    width = max(len(name) for name, _ in places)
    say("everything runs; Ctrl-C stops it")
    with suppress(OSError, ValueError):
        for name, where in places:
            sys.stderr.write(f"  {name:<{width}}  {where}\n")
        sys.stderr.flush()


def _warn_without_keys(local: LocalStack) -> None:
    from headgate.shared import settings

    if local.installation is None:
        return
    providers = local.installation.catalog.providers.values()
    names = sorted({name for provider in providers for name in provider.api_key_env})
    if not local.settings.simulator_url and not any(map(settings.secret, names)):
        say(
            "no provider's key is set, so every job will fail: set one of "
            f"{', '.join(names)}, or use --simulate"
        )
