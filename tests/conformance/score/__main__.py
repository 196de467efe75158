"""`python -m tests.conformance.score`: the score of the gateway, category by category.

It starts `headgate up` with a provider that records what it gets and answers what it is told. It
ends with 1 if a category is below its aim.
"""

from __future__ import annotations

import argparse
import sys

from tests.conformance.score.measure import measured
from tests.conformance.score.report import below_aim, report


def main(arguments: list[str]) -> int:
    """Measure and print the score."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.score")
    parser.add_argument("--only", default="", help="only the category of this name")
    parser.add_argument("--missing", action="store_true", help="name each property that is missing")
    given = parser.parse_args(arguments)
    found = measured(given.only)
    sys.stdout.write(report(found, names=given.missing) + "\n")
    return 1 if below_aim(found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
