"""Job ids, and times as Unix ms and as RFC 3339."""

from __future__ import annotations

import os
import time
from functools import lru_cache

LATEST_MS = 253_370_764_800_000
"""The start of the year 9999 in Unix ms; RFC 3339 has no year of five digits."""


def now_ms() -> int:
    """Return the time of the wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """Return a new UUIDv7 (RFC 9562): Unix ms in 48 bits, 4096ths of a ms in 12, 62 random bits.

    Jobs that were submitted in the same millisecond start in the order of their ids. The 12 bits
    keep that the order of their submission.
    """
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    bits = (ms << 80) | (0x7 << 76) | (rest_ns * 4096 // 1_000_000 << 64)
    bits |= int.from_bytes(os.urandom(8), "big")
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def rfc3339(at_ms: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339 in UTC with three decimals; None for None."""
    if at_ms is None:
        return None
    seconds, ms = divmod(at_ms, 1000)
    return f"{_to_the_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=256)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
