"""`headgate simulate`: the simulated provider alone."""

from __future__ import annotations

import os

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    short_help="Run the simulated provider alone.",
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def simulate(flags: tuple[str, ...]) -> None:
    """Run the simulated provider; `headgate simulate --help` lists its options."""
    from headgate.producer.local.launch import program

    # The simulator belongs to the workers: the command line starts it and never imports it.
    argv = [*program("headgate.workers.simulator"), *flags]
    os.execv(argv[0], argv)  # noqa: S606
