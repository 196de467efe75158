"""The command line: one file per noun. `main` is the program `headgate`.

Nothing is imported before a command needs it, so that `headgate --help` is quick.
"""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from headgate.producer.cli.terminal.exit_codes import run

    code = run(sys.argv[1:])
    # The interpreter looks for garbage once more before it ends, for as long as all imports took.
    gc.freeze()
    sys.exit(code)
