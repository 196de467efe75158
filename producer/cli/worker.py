"""`headgate worker`: one worker process in the foreground."""

from __future__ import annotations

import os
import signal
import sys

import click

from headgate.producer.cli.terminal.exit_codes import DONE


@click.command()
@click.option(
    "--queues", "-Q", metavar="Q,..",
    help="Serve only these queues, with commas between them (default: all).",
)  # fmt: skip
@click.option(
    "--concurrency", "-c", type=click.IntRange(1, 20_000), metavar="N",
    help="Jobs that run at one time (default: HEADGATE_CONCURRENCY, else 500).",
)  # fmt: skip
@click.option(
    "--name", "-n", help="A name that no other worker has (default: worker- and the process id)."
)
def worker(queues: str | None, concurrency: int | None, name: str | None) -> None:
    """Run one worker process in the foreground.

    It is the same as `celery -A headgate.workers.app worker` with our defaults. SIGTERM or Ctrl-C
    lets running jobs finish for HEADGATE_DRAIN_S (30 s); a second one puts them back on their
    queues at once. After a stop the exit code is 0, or 3 if a server did not answer.

    \b
    Example: headgate worker --queues headgate.interactive.fast,headgate.interactive.smart
    """
    # Without a handler, the first process of a container ignores the signal.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    from headgate.producer.installation import open_installation
    from headgate.producer.local.stack import worker_argv
    from headgate.shared import settings
    from headgate.shared.broker.keys import DEAD_QUEUE
    from headgate.shared.broker.queues import all_queues
    from headgate.shared.catalog import access
    from headgate.shared.errors import WrongUse

    in_force = settings.load()
    at = open_installation(in_force)
    access.check(in_force, at.catalog)
    named = [queue.strip() for queue in (queues or "").split(",") if queue.strip()]
    known = all_queues(at.catalog.classes)
    for queue in named:
        if queue not in known:
            remedy = f"no such queue; known: {', '.join(known)}"
            if queue == DEAD_QUEUE:
                remedy = "workers do not serve dead letters; use `headgate dead`"
            raise WrongUse("--queues", queue, remedy)
    at.close()
    name = name or f"worker-{os.getpid()}"
    argv = worker_argv(name, in_force.log_level, queues=named, concurrency=concurrency)
    # The worker replaces this process, so it gets the signals and the terminal, and its exit code
    # counts. Signals that come while it starts stay pending until it handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
    os.execv(argv[0], argv)  # noqa: S606
