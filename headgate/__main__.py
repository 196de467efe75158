"""Run the command `headgate`: `python -m headgate` is the same."""

import sys

if not sys.flags.safe_path:
    # The current folder, which `python -m` puts first: a module `redis` there is not the real one.
    sys.path.append(sys.path.pop(0))

from headgate.producer.cli import main  # after the change of the path

main()
