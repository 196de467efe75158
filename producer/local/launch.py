"""Runs a module as a program, the same in every folder.

    python -P launch.py MODULE ARGUMENTS...

`python -m` puts the current folder first on `sys.path`, and Celery does so, too. A module `redis`
or `celery` there would take the place of the real one. Here the current folder comes last: a
function that HEADGATE_TIERS names may lie in it.
"""

import runpy
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path


def program(module: str) -> list[str]:
    """Return the first words of a command that runs this module."""
    return [sys.executable, "-P", __file__, module]


def main(arguments: list[str]) -> None:
    """Run the module with its arguments."""
    root = Path(__file__).absolute().parents[3]
    found = find_spec("headgate")
    if found is None or found.origin is None or Path(found.origin).parents[1] != root:
        sys.path.insert(0, str(root))  # a checkout, whose program must not run another headgate
    with suppress(OSError):
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)
    sys.argv = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
