"""Runs commands of `celery -A headgate.workers.app` one after the other, in one process.

Each line of standard input is a list of words in JSON; the answer is `[exit code, output]`.
"""

from __future__ import annotations

import json
import sys
import traceback

from celery.bin.celery import celery
from click.testing import CliRunner


def main() -> None:
    """Answer line by line."""
    for line in sys.stdin:
        given = json.loads(line)
        words = ["-A", "headgate.workers.app", "--no-color", *given["words"]]
        ended = CliRunner().invoke(celery, words, input=given["typed"])
        output = ended.output
        if ended.exception is not None and not isinstance(ended.exception, SystemExit):
            output += "".join(traceback.format_exception(ended.exception))
        sys.stdout.write(json.dumps([ended.exit_code, output]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
