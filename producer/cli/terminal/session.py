"""The installation for as long as one command reads or changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.producer.installation import Installation


@contextmanager
def open_session() -> Iterator[Installation]:
    """Open the installation; raise Unreachable if one of its servers does not answer."""
    from headgate.producer.installation import open_installation

    at = open_installation()
    try:
        with at.reaching():
            yield at
    finally:
        at.close()
