"""How the C library keeps the memory of large blocks that were freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

LARGE = 1 << 20
"""Blocks from this many bytes on are mapped one by one."""

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def return_large_blocks() -> None:
    """Let glibc return a large block to the system as soon as it is freed.

    Without this, the first freed block of some MB makes glibc take the next ones from its heap,
    which holds on to them. Measured with 24 prompts of 4 MB: 277 MB afterwards, 216 MB with this.
    Other C libraries have no such setting, and are left as they are.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE)
