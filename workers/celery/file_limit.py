"""How many files a worker may have open, and how many jobs fit into that.

Each running job has a connection to its provider. Too few file handles would fail jobs in all the
places that open something.
"""

from __future__ import annotations

import logging
import resource
from contextlib import suppress

log = logging.getLogger("headgate.app")

OTHERS = 100
"""Handles that are left for all but the jobs: connections to Redis, the database with its companion
files, logs, and lookups of addresses. With 256 handles and 400 jobs this sufficed."""


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard one, and log it.

    The soft limit is small on many systems (256 on macOS), because of programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard or soft == resource.RLIM_INFINITY:
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        what = "any number of" if hard == resource.RLIM_INFINITY else str(hard)
        log.info("this process may now open %s files; the limit was %d", what, soft)


def slots_within(wanted: int) -> int:
    """Return how many of the `wanted` jobs may run at a time under the limit of open files.

    Log a warning if it is less.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or wanted + OTHERS <= soft:
        return wanted
    fitting = max(1, soft - OTHERS)
    if fitting < wanted:
        log.warning(
            "running at most %d jobs at a time instead of %d: this process may open %d files; "
            "raise the limit (`ulimit -n`, LimitNOFILE) to at least %d",
            fitting, wanted, soft, wanted + OTHERS,
        )  # fmt: skip
    return min(wanted, fitting)
