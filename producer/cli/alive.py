"""`headgate alive`: whether the workers of this machine run; for health checks."""

from __future__ import annotations

import json

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED
from headgate.producer.cli.terminal.output import print_line, print_note


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one line for each worker.")
def alive(name: str | None, as_json: bool) -> int:
    """Check that the workers of this machine run.

    The exit code is 0 if all run, and 1 if one hangs or none runs. NAME is one worker: its node
    name (worker-1@host) or the part before the @ (default: all workers of this home).

    The command reads files and asks no server. So an outage of Redis or of the database does not
    make a supervisor restart the workers.

    \b
    Example: headgate alive worker-1
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
            state = "alive" if sign.is_alive else "hangs"
            line = f"{sign.node}: {state} ({sign.age_s:.1f} s ago)"
        print_line(line)
    if not found:
        print_note(f"no worker {name or 'of this machine'} runs in {home}")
    return DONE if found and all(sign.is_alive for sign in found) else FAILED
