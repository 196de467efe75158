"""`python -m tests.bench governor [--seconds S] [--settle S] [--only NAME,...] [--markdown]`."""

from __future__ import annotations

import argparse
import importlib
import sys

from tests.bench.governor.load import Span

TABLES = {
    "exact": ("limits", "exact", "limits used with exact estimates"),
    "off": ("limits", "off", "with estimates 20 % off"),
    "stranger": ("limits", "stranger", "with a stranger under the same key"),
    "halved": ("limits", "halved", "with the limit halved at mid-run"),
    "restarted": ("limits", "restarted", "with Redis killed and started again"),
    "depths": ("depths", "depths", "buckets of 1, 10 and 60 s, continuous and fixed"),
    "installations": ("installations", "installations", "two that share one limit"),
    "burst": ("burst", "burst", "a batch at once where the bucket holds a minute"),
    "order": ("order", "interactive", "interactive jobs behind 50,000 bulk jobs"),
    "fair": ("order", "fair", "ten tenants, and three with weights"),
    "peers": ("peers", "peers", "Celery's rate_limit and LiteLLM's Router beside us"),
    "grants": ("grants", "grants", "grants a second of the scripts"),
    "waiting": ("waiting", "waiting", "what 100,000 waiting jobs cost"),
}


def main(arguments: list[str]) -> int:
    """Each table that was asked for has been printed; 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench governor")
    parser.add_argument("--seconds", type=float, default=60, help="measured time of a run (60)")
    parser.add_argument("--settle", type=float, default=15, help="time left out before it (15)")
    parser.add_argument("--markdown", action="store_true")
    known = ", ".join(f"{name} ({words})" for name, (_, _, words) in TABLES.items())
    parser.add_argument("--only", metavar="NAME,...", default=",".join(TABLES), help=known)
    given = parser.parse_args(arguments)
    names = [name.strip() for name in given.only.split(",") if name.strip()]
    for name in names:
        if name not in TABLES:
            parser.error(f"--only {name!r}: there are {', '.join(TABLES)}")
    for name in names:
        module, function, words = TABLES[name]
        sys.stderr.write(f"{name}: {words}\n")
        measure = getattr(importlib.import_module(f"tests.bench.governor.{module}"), function)
        table = measure(Span(given.seconds, given.settle))
        sys.stdout.write((table.markdown() if given.markdown else table.plain()) + "\n\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
