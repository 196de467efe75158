"""`python -m tests.bench [--markdown] [NAME...]`: measurements; nameless, the standard set.

`python -m tests.bench governor [--seconds S] [--only NAME,...]` measures the governor, `... answers
[--replay FOLDER]` cache, sharing and routing, `... scale [--plot PNG]` what a job costs the more
there is, `... outage [--plot PNG]` a provider that goes away.
"""

from __future__ import annotations

import importlib
import sys

from tests.bench import outage
from tests.bench.answers import __main__ as answers
from tests.bench.gateway import __main__ as gateway
from tests.bench.governor import __main__ as governor
from tests.bench.scale import __main__ as scale

STANDARD = {
    "pipeline": "the full line beside what else one could use",
    "processes": "one, two and four worker processes on both databases",
    "latency": "a provider that takes a second, 2,000 in flight",
    "overhead": "what an idle system adds to a call",
    "memory": "a worker's memory by jobs in flight",
    "trips": "Redis commands and commits per job",
    "redis": "Redis CPU per job by kind of pool, and which scripts take it",
    "pool": "no-op jobs: pool, Fetcher and Celery's bookkeeping alone",
    "submit": "how fast jobs are submitted",
}
BY_NAME_ONLY = {
    "storm": "retries while 17 % of the calls fail (a minute)",
    "million": "a million queued jobs (some minutes, some GB of disk)",
    "small_redis": "a million jobs through a Redis of 64 MB (half an hour, 5 GB of disk)",
    "clients": "what calls cost on Redis and over HTTP, and 1,000 who wait (a minute)",
    "cancels": "5,000 single cancels beside a worker at full rate (some minutes)",
    "usage": "who used what, of ten million jobs (20 minutes, 10 GB of disk)",
}
WITH_OPTIONS = {
    "governor": (governor.main, "limits, order and peers (half an hour; governor --help)"),
    "answers": (answers.main, "cache, sharing and a day's replay (minutes; answers --help)"),
    "scale": (scale.main, "what a job costs the more there is (half an hour; scale --help)"),
    "gateway": (gateway.main, "what the gateway adds to a call, and holds (gateway --help)"),
    "outage": (outage.main, "a provider that is down for a minute (outage --help)"),
}


def main(arguments: list[str]) -> int:
    """Each named bench has printed its table; 2 for a name that is none."""
    if arguments and arguments[0] in WITH_OPTIONS:
        return WITH_OPTIONS[arguments[0]][0](arguments[1:])
    names = [word for word in arguments if word != "--markdown"]
    known = STANDARD | BY_NAME_ONLY
    for name in names:
        if name not in known:
            sys.stderr.write(f"no bench {name!r}; there are {', '.join([*known, *WITH_OPTIONS])}\n")
            return 2
    if not names:
        for name, words in [*known.items(), *((n, w) for n, (_, w) in WITH_OPTIONS.items())]:
            sys.stderr.write(f"{name:10} {words}\n")
    for name in names or STANDARD:
        sys.stderr.write(f"{name}:\n")
        table = importlib.import_module(f"tests.bench.{name}").measure()
        shown = table.markdown() if "--markdown" in arguments else table.plain()
        sys.stdout.write(shown + "\n\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
