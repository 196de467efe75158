"""`make conformance`: unmodified clients of the vendors against the gateway.

`python -m tests.conformance [--url URL] [--only WORD]` starts `headgate up --simulate`, or uses the
gateway at URL, runs llm-comply and the programs in `examples/` against it, and prints a table. It
ends with 1 if a case is red that `expected.toml` does not list with its reason.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch

from tests import ROOT
from tests.bench.table import Table
from tests.conformance.cases import Outcome, all_cases, read_expected, run_case
from tests.conformance.environments import make_all
from tests.conformance.sdk_suites import examples, run_suites
from tests.conformance.up import Up
from tests.support.servers import short_folder

FOLDER = ROOT / ".conformance"
KEY = "sk-headgate-conformance"


@contextmanager
def gateway(url: str | None) -> Iterator[str]:
    """The base address of a gateway: the one at `url`, or one that is started for this run."""
    if url is not None:
        yield url.rstrip("/")
        return
    with short_folder() as folder:
        running = Up(folder)
        running.start(60)
        try:
            yield running.url
        finally:
            running.stop(30)


def main(arguments: list[str]) -> int:
    """Run the cases, print them, and return 1 if one is red without a reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("--url", help="a gateway that runs (default: one is started)")
    parser.add_argument("--key", default=KEY, help="the key for it")
    parser.add_argument("--only", default="", help="only cases whose names hold this word")
    given = parser.parse_args(arguments)
    programs = make_all(FOLDER)
    expected = read_expected()
    outcomes: list[Outcome] = []
    with gateway(given.url) as url:
        own = examples(FOLDER, programs.python, url, given.key)
        for case in (*all_cases(programs, url, given.key), *own):
            if given.only in case.name:
                outcomes += run_case(case)
        if given.only in "tests of the libraries":
            outcomes += run_suites(FOLDER, programs.python, url)
    table = Table("conformance", ("case", "outcome", "what"))
    red = 0
    for outcome in outcomes:
        reason = next((why for name, why in expected.items() if fnmatch(outcome.name, name)), None)
        word = outcome.word if reason is None or outcome.word != "red" else "red, as documented"
        red += word == "red"
        table.rows.append((outcome.name, word, (reason or outcome.words)[:110]))
    sys.stdout.write(table.plain() + "\n\n")
    green = sum(outcome.word == "green" for outcome in outcomes)
    sys.stdout.write(f"{green} green of {len(outcomes)}, {red} red without a reason\n")
    return 1 if red or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
