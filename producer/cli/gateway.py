"""`headgate gateway`: the HTTP gateway, in the foreground."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import click

from headgate.producer.cli.terminal.exit_codes import DONE, INTERRUPTED
from headgate.producer.cli.terminal.output import print_error_text, print_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headgate.producer.local.process import Child
    from headgate.shared.settings import Settings

_CHECK_EVERY_S = 0.25


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=8080, show_default=True, metavar="P",
    help="The port to listen on.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, show_default=True, metavar="N",
    help="Number of gateway processes, which share the port.",
)  # fmt: skip
def gateway(host: str, port: int, workers: int) -> int:
    """Serve OpenAI's and Anthropic's dialects over HTTP: every call is a job.

    Point a client at it with base_url http://HOST:PORT/v1 (OpenAI) or http://HOST:PORT (Anthropic).
    Callers need a key of `headgate keys create`, unless HEADGATE_GATEWAY_OPEN=1. SIGTERM or Ctrl-C
    lets open calls end for HEADGATE_DRAIN_S (30 s). SIGHUP reads the certificate anew.

    \b
    Example: headgate gateway --port 8080 --workers 2
    """
    from headgate.producer.gateway.server import config_of, serve
    from headgate.producer.installation import require_home
    from headgate.shared import settings

    in_force = settings.load()
    if in_force.redis_url is None or in_force.database_url is None:
        require_home(in_force)
    scheme = "http" if in_force.gateway_tls_cert is None else "https"
    shown = f"[{host}]" if ":" in host else host
    if workers == 1:
        note = f"the gateway listens on {scheme}://{shown}:{port}"
        return serve(in_force, host=host, port=port, announce=lambda: print_note(note))
    config_of(in_force, host=host, port=port)  # so that a bad setting stops us here
    note = f"{workers} gateway processes listen on {scheme}://{shown}:{port}"
    return _supervise(in_force, host, port, workers, note)


def _reload(children: Sequence[Child]) -> None:
    for child in children:
        child.request_reload()


def _supervise(in_force: Settings, host: str, port: int, workers: int, note: str) -> int:
    """Run the processes until the user stops them, and start those anew that die."""
    from headgate.producer.cli.terminal.interrupt import Interrupt
    from headgate.producer.gateway.server import bind
    from headgate.producer.local.launch import program
    from headgate.producer.local.process import Child, stop_all
    from headgate.shared import settings

    words = ["--host", host, "--port", str(port), "--shared"]
    # Held for as long as we run, so that no other program takes the port; it never listens.
    bind(host, port).close()
    print_note(note)
    with bind(host, port, is_shared=True), Interrupt("stopping: open calls may end") as stop:
        children = [
            Child(
                f"gateway-{n}", [*program("headgate.producer.gateway"), *words],
                env=settings.environment(), grace_s=in_force.drain_s + 5,
                on_line=lambda line: print_error_text(f"{line}\n"),
            )
            for n in range(1, workers + 1)
        ]  # fmt: skip
        try:
            for child in children:
                child.start()
            if in_force.gateway_tls_cert is not None:
                signal.signal(signal.SIGHUP, lambda *_: _reload(children))
            while not stop.requested():
                for child in children:
                    if death := child.restart_dead():
                        print_note(death)
                time.sleep(_CHECK_EVERY_S)
        finally:
            for child in children:
                child.request_stop()
            stop_all(children, stop.at_once)
    return DONE if stop.signal == signal.SIGTERM else INTERRUPTED
