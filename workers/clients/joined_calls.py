"""Joins the script calls of many jobs into one: what they all read and write is done once.

`Command.head` says which commands may be joined. Pure: nothing is sent here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from headgate.shared.broker.script import Word

MOST_JOINED = 64
"""Most commands in one call, which then holds the server for about 1 ms."""

MOST_BYTES = 262_144
"""A call of so many bytes takes no further command."""


@dataclass(frozen=True, slots=True)
class PendingCommand:
    """A command and who waits for its reply. `tail_at`: where its own words begin; 0: alone."""

    words: tuple[Word, ...]
    future: asyncio.Future[Any]
    tail_at: int = 0


@dataclass(slots=True)
class JoinedCall:
    """What is sent at once. If it `is_joined`, the reply has an item for each of its asks."""

    words: list[Word]
    asks: list[PendingCommand]
    is_joined: bool
    bytes: int = 0

    @property
    def is_full(self) -> bool:
        """True if it takes no further command."""
        return len(self.asks) >= MOST_JOINED or self.bytes >= MOST_BYTES

    def add(self, ask: PendingCommand) -> None:
        """Let the call do what this command asks for, too."""
        tail = ask.words[ask.tail_at :]
        self.words += tail
        self.asks.append(ask)
        self.bytes += sum(len(word) for word in tail if isinstance(word, str | bytes))


def calls_of(asks: Iterable[PendingCommand]) -> list[JoinedCall]:
    """Return the calls that do what these commands ask for.

    Each stands where the last of its commands stood. So the end of a job is never told before what
    was sent of it until then.
    """
    calls: dict[int, JoinedCall] = {}
    growing: dict[tuple[Word, ...], int] = {}
    for place, ask in enumerate(asks):
        if not ask.tail_at:
            calls[place] = JoinedCall([*ask.words], [ask], False)
            continue
        head = ask.words[: ask.tail_at]
        call = (
            calls.pop(growing[head]) if head in growing else JoinedCall([*head], [], is_joined=True)
        )
        call.add(ask)
        calls[place] = call
        growing[head] = place
        if call.is_full:
            del growing[head]
    return [*calls.values()]
