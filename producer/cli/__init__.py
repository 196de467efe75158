"""The command line: one file per noun. `main` is the program `headgate`.

Nothing is imported before a command needs it, so that `headgate --help` is quick.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The command line has been carried out, and the process ends with the contract's exit code."""
    from headgate.producer.cli.terminal.exit_codes import run

    sys.exit(run(sys.argv[1:]))
