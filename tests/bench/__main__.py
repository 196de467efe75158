"""`python -m tests.bench NAME...`: the measurements; without a name, all of them in turn."""

from __future__ import annotations

import importlib
import sys

NAMES = ("pool", "submit", "pipeline")


def main(names: list[str]) -> int:
    """Each named bench has printed its figures; 2 for a name that is none."""
    for name in names or NAMES:
        if name not in NAMES:
            sys.stderr.write(f"no bench {name!r}; there are {', '.join(NAMES)}\n")
            return 2
        sys.stdout.write(f"\n== {name}\n")
        sys.stdout.flush()
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
