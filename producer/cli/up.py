"""`headgate up`: the whole system on this machine, in the foreground."""

from __future__ import annotations

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import DONE, INTERRUPTED
from headgate.producer.cli.terminal.output import print_error_text, print_note

if TYPE_CHECKING:
    from headgate.producer.cli.terminal.interrupt import Interrupt
    from headgate.producer.local.stack import LocalStack

_CHECK_EVERY_S = 0.25


@click.command()
@click.option("--simulate", is_flag=True, help="Use a simulated provider, which needs no key.")
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
    help="Number of worker processes.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65_535), metavar="P",
    help="Port of the gateway on 127.0.0.1 (default: 8080, or a free one if that is taken).",
)  # fmt: skip
@click.option(
    "--simulate-port", type=click.IntRange(1, 65_535), metavar="P",
    help="Port of the simulated provider (default: a free one).",
)  # fmt: skip
@click.option(
    "--flower", is_flag=True,
    help="Run Flower, too, on 127.0.0.1, with the login of FLOWER_BASIC_AUTH or a new one.",
)  # fmt: skip
@click.option(
    "--flower-port", type=click.IntRange(1, 65_535), metavar="P",
    help="Port of Flower (default: 5555).",
)  # fmt: skip
def up(
    simulate: bool, workers: int, port: int | None, simulate_port: int | None, flower: bool,
    flower_port: int | None,
) -> int:  # fmt: skip
    """Run the whole system on this machine until Ctrl-C.

    It starts workers, the gateway for programs of this machine and, if HEADGATE_REDIS_URL is not
    set, an embedded Valkey server. Without --simulate set a provider's key, such as OPENAI_API_KEY.
    Ctrl-C lets running jobs finish; a second one stops at once and puts them back on their queues.

    \b
    Example: headgate up --simulate
    """
    from headgate.producer.cli.terminal.interrupt import STOPPING, Interrupt
    from headgate.producer.installation import require_home
    from headgate.producer.local.stack import FLOWER_PORT, LocalStack, gateway_port
    from headgate.shared import settings

    _refuse_ports_of_nothing(
        simulate_port if not simulate else None, flower_port if not flower else None
    )
    in_force = settings.load()
    require_home(in_force)
    with _lock(in_force.home_path), Interrupt(STOPPING) as stop:
        local = LocalStack(
            in_force,
            notify=print_note,
            on_line=_print_process_line,
            workers=workers,
            simulator=["--port", str(simulate_port)] * bool(simulate_port) if simulate else None,
            gateway_port=port or gateway_port(),
            flower_port=(flower_port or FLOWER_PORT) if flower else None,
            log_level=in_force.log_level,
            at_once=stop.requested,
        )
        _supervise(local, stop)
    print_note("stopped")
    return DONE if stop.signal == signal.SIGTERM else INTERRUPTED


def _refuse_ports_of_nothing(simulate_port: int | None, flower_port: int | None) -> None:
    """Raise UsageError for a port of what is not started."""
    if simulate_port is not None:
        raise click.UsageError("--simulate-port is for the simulated provider; add --simulate")
    if flower_port is not None:
        raise click.UsageError("--flower-port is for Flower; add --flower")


def _supervise(local: LocalStack, stop: Interrupt) -> None:
    """Start all, print the addresses, and restart what dies, until the user stops it."""
    try:
        local.start()
        _warn_without_keys(local)
        _run(local, stop)
    finally:
        local.at_once = stop.at_once
        local.stop()


def _run(local: LocalStack, stop: Interrupt) -> None:
    if local.wait_for_workers() and local.wait_for_gateway():
        _show(local)
    elif not stop.requested():
        print_note("the workers do not answer yet; see their output")
    while not stop.requested():
        local.restart_dead()
        time.sleep(_CHECK_EVERY_S)


@contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Lock the home against a second `headgate up`; raise WrongUse if one runs."""
    import os

    from headgate.shared.errors import WrongUse

    path = home / "up.lock"
    # The file stays after the lock is released: a file that is deleted could be locked by two.
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read(20).strip() or "unknown"
            remedy = f"`headgate up` runs here already (pid {pid}); stop it, or set another home"
            raise WrongUse("HEADGATE_HOME", str(home), remedy) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _print_process_line(name: str, text: str) -> None:
    """Print a line that a process wrote on standard error, after the name of the process."""
    print_error_text(f"{name:<10} | {text}\n")


def _show(local: LocalStack) -> None:
    addresses = local.addresses()
    width = max(len(name) for name, _ in addresses)
    print_note("everything runs; Ctrl-C stops it")
    for name, address in addresses:
        print_error_text(f"  {name:<{width}}  {address}\n")


def _warn_without_keys(local: LocalStack) -> None:
    from headgate.shared import settings
    from headgate.shared.catalog import access

    if local.installation is None or local.simulator is not None:
        return
    providers = local.installation.catalog.providers.values()
    names = {name for provider in providers for name in provider.api_key_env}
    if not local.settings.simulator_url and not any(map(settings.secret, names)):
        print_note(access.no_keys(local.installation.catalog))
