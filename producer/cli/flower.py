"""`headgate flower`: Flower, Celery's monitor, for this installation, in the foreground."""

from __future__ import annotations

import os

import click


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=5555, show_default=True, metavar="P",
    help="Port to listen on.",
)  # fmt: skip
@click.option(
    "--control", is_flag=True, help="Allow actions that change workers (default: read-only)."
)
def flower(address: str, port: int, control: bool) -> None:
    """Run Flower, Celery's web monitor, in the foreground.

    It shows queues, workers, jobs and rates, but no prompts and no answers. Set the login in
    FLOWER_BASIC_AUTH, as user:password.

    \b
    Example: FLOWER_BASIC_AUTH=admin:secret headgate flower --port 5555
    """
    from headgate.producer.local.launch import program
    from headgate.shared import settings
    from headgate.shared.errors import SettingError

    login = settings.load().flower_basic_auth
    if login is None:
        remedy = "Flower needs a login; set it to user:password"
        raise SettingError("FLOWER_BASIC_AUTH", "", remedy)
    argv = [
        *program("headgate.workers.flower"),
        "--address",
        address,
        "--port",
        str(port),
    ]
    # In the environment: every user of the machine can read the arguments of a process.
    env = {**settings.environment(), "FLOWER_BASIC_AUTH": login.get_secret_value()}
    os.execve(argv[0], [*argv, *(["--control"] if control else [])], env)  # noqa: S606
