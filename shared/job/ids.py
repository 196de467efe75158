"""Job ids and moments: Unix ms, and RFC 3339 for people."""

from __future__ import annotations

import os
import time

LATEST_MS = 253_370_764_800_000
"""The start of the year 9999: no later moment can be written down everywhere."""


def now_ms() -> int:
    """The wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A fresh UUIDv7 (RFC 9562): Unix ms in 48 bits, its 4096th parts in 12, and 62 random bits.

    Jobs of one millisecond stand in line by their ids: so the first submitted is the first served.
    """
    ms, rest_ns = divmod(time.time_ns(), 1_000_000)
    bits = (ms << 80) | (0x7 << 76) | (rest_ns * 4096 // 1_000_000 << 64)
    bits |= int.from_bytes(os.urandom(8), "big")
    bits = bits & ~(0x3 << 62) | (0x2 << 62)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def rfc3339(at_ms: int | None) -> str | None:
    """Unix milliseconds as RFC 3339 in UTC with three decimals, or None."""
    if at_ms is None:
        return None
    seconds, ms = divmod(at_ms, 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{ms:03d}Z"
