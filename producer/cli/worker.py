"""`headgate worker`: one worker process in the foreground."""

from __future__ import annotations

import os
import signal
import sys

import click

from headgate.producer.cli.terminal.exit_codes import DONE


@click.command()
@click.option("--queues", "-Q", metavar="Q,..", help="Serve only these queues (default: all).")
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 20_000), metavar="N",
    help="Jobs in flight (default: HEADGATE_CONCURRENCY).",
)  # fmt: skip
@click.option("--name", "-n", help="Name of the worker; must differ between workers.")
def worker(queues: str | None, concurrency: int | None, name: str | None) -> None:
    """Run one worker process; SIGTERM or Ctrl-C lets running jobs finish, a second one does not.

    The same as `celery -A headgate.workers.app worker` with our defaults. Told to stop it exits with 0 when
    all jobs have finished or gone back to their queues, with 3 when a server did not answer.
    """
    # As the first process of a container it would not hear of a signal without a handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    from headgate.producer.installation import open_installation
    from headgate.producer.local.stack import worker_argv
    from headgate.shared import settings
    from headgate.shared.broker.keys import DEAD_QUEUE
    from headgate.shared.broker.queues import all_queues
    from headgate.shared.errors import WrongUse

    in_force = settings.load()
    at = open_installation(in_force)
    named = [queue.strip() for queue in (queues or "").split(",") if queue.strip()]
    known = all_queues(at.catalog.classes)
    for queue in named:
        if queue not in known:
            remedy = f"no such queue; use some of {', '.join(known)}"
            raise WrongUse("--queues", queue, remedy if queue != DEAD_QUEUE else "serves no worker")
    at.close()
    name = name or f"worker-{os.getpid()}"
    argv = worker_argv(name, in_force.log_level, queues=named, concurrency=concurrency)
    # The worker takes this process's place: signals, exit code and terminal are its own. Those that
    # come while it starts wait until it heeds them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
    os.execv(argv[0], argv)  # noqa: S606
