"""`python -m tests.bench answers [--replay FOLDER] [--speed N] [--only NAME,...] [--markdown]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tests.bench.answers import day, hits, recall
from tests.bench.answers.replay import replay
from tests.bench.table import Table


def main(arguments: list[str]) -> int:
    """Each table that was asked for has been printed; 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench answers")
    parser.add_argument(
        "--replay", type=Path, metavar="FOLDER",
        help="with replay.jsonl and prompts.jsonl; without it 1,000 arrivals are made",
    )  # fmt: skip
    parser.add_argument("--speed", type=float, default=300, help="seconds of the day in one (300)")
    parser.add_argument("--markdown", action="store_true")

    def replayed() -> Table:
        arrivals = day.read(given.replay) if given.replay else day.made()
        return replay(arrivals, given.speed)

    tables: dict[str, tuple[Callable[[], Table], str]] = {
        "recall": (recall.recall, "a look into the cache by itself"),
        "hits": (hits.hits, "a hit, a miss, and neither"),
        "flights": (hits.flights, "equal jobs at once"),
        "replay": (replayed, "a day of arrivals: what cache, sharing and routing save"),
    }
    known = ", ".join(f"{name} ({words})" for name, (_, words) in tables.items())
    parser.add_argument("--only", metavar="NAME,...", default=",".join(tables), help=known)
    given = parser.parse_args(arguments)
    names = [name.strip() for name in given.only.split(",") if name.strip()]
    for name in names:
        if name not in tables:
            parser.error(f"--only {name!r}: there are {', '.join(tables)}")
    if given.replay and not (given.replay / "replay.jsonl").is_file():
        parser.error(f"--replay {given.replay}: no replay.jsonl in it")
    for name in names:
        measure, words = tables[name]
        sys.stderr.write(f"{name}: {words}\n")
        table = measure()
        sys.stdout.write((table.markdown() if given.markdown else table.plain()) + "\n\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
