"""The installation for as long as one command looks at it or changes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headgate.producer.installation import Installation


@contextmanager
def opened() -> Iterator[Installation]:
    """The open installation; what its servers do not answer becomes Unreachable."""
    from headgate.producer.installation import open_installation

    at = open_installation()
    try:
        with at.reaching():
            yield at
    finally:
        at.close()
