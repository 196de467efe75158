"""`headgate alive`: whether the worker processes of this machine run; for health checks."""

from __future__ import annotations

import json
import sys

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, say


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each worker.")
def alive(name: str | None, as_json: bool) -> int:
    """Exit with 0 if the workers of this machine and home run, with 1 if one hangs or none runs.

    NAME is one worker, as its node (worker-1@host) or what stands before the @. Asks no server,
    so that an outage of Redis or of the database restarts no worker.
    """
    from headgate.shared import settings
    from headgate.shared.servers.liveness import signs

    home = settings.load().home_path
    found = [sign for sign in signs(home) if name in (None, sign.node, sign.node.split("@")[0])]
    for sign in found:
        if as_json:
            line = json.dumps(
                {"worker": sign.node, "alive": sign.is_alive, "beat_s_ago": round(sign.age_s, 3)}
            )
        else:
            word = "alive" if sign.is_alive else "hangs"
            line = f"{sign.node}: {word} ({sign.age_s:.1f} s ago)"
        sys.stdout.write(f"{line}\n")
    if not found:
        say(f"no worker {name or 'of this machine'} runs in {home}")
    return DONE if found and all(sign.is_alive for sign in found) else FAILED
