"""Acts that a cancellation must not interrupt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def through(act: Awaitable[T]) -> T:
    """Return the act's answer; complete the act also if the run is cancelled meanwhile.

    The cancellation is raised after the act. Half a claim or half a settlement would be worse than
    a cancellation that comes a moment later.
    """
    future = asyncio.ensure_future(act)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait({future})
        raise
