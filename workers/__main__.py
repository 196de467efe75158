"""Starts one worker: `python -m headgate.workers`, which `headgate worker` and `headgate up` run.

It is the worker of `celery -A headgate.workers.app worker`, with the few options that our commands
use. Celery's command line imports every command that a package adds to it, with Flower's web server
and a shell among them: 16 of the 110 MB of an idle worker.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from celery.utils.nodenames import default_nodename, host_format

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _options() -> ArgumentParser:
    """Return the options, which have the names of Celery's."""
    parser = ArgumentParser(prog="python -m headgate.workers", description="Run one worker.")
    parser.add_argument("--loglevel", "-l", type=str.upper, choices=LEVELS, default="WARNING")
    parser.add_argument("--hostname", "-n", help="the name that no other worker has")
    parser.add_argument("--queues", "-Q", help="serve only these, with commas between them")
    parser.add_argument("--concurrency", "-c", type=int, help="jobs that run at one time")
    parser.add_argument("--quiet", "-q", action="store_true", help="without Celery's banner")
    return parser


def main(arguments: list[str]) -> int:
    """Run a worker until it is stopped; return its exit code."""
    options = _options().parse_args(arguments)
    from headgate.workers.app import app

    worker = app.Worker(
        hostname=host_format(default_nodename(options.hostname)),
        loglevel=options.loglevel,
        queues=options.queues,
        concurrency=options.concurrency,
        quiet=options.quiet,
    )
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
