"""How many bytes one worker holds: the messages of its jobs, and what it has read of answers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

SMALL = 64 * 1024
"""So many bytes of an answer never wait: nearly all answers are smaller."""


class InFlight:
    """The bytes that one worker may hold. `messages` returns those of its jobs' messages.

    Messages and answers share `max_bytes`, and half of it is always there for answers. A call waits
    with reading while the answers leave no room. One call never waits, however large its answer
    is, so the calls cannot wait for each other without end.
    """

    def __init__(self, max_bytes: int, messages: Callable[[], int] = int) -> None:
        self.answers = 0
        self._max_bytes = max_bytes
        self._messages = messages
        self._first: AnswerRoom | None = None
        self._waiting: deque[tuple[AnswerRoom, asyncio.Future[None]]] = deque()

    @property
    def left(self) -> int:
        """How many bytes of messages may still be fetched; below 0 where answers took more."""
        return self._max_bytes - self._messages() - self.answers

    @property
    def is_full(self) -> bool:
        """Whether the answers take more than their part."""
        return self.answers > max(self._max_bytes - self._messages(), self._max_bytes // 2)

    def may_go_on(self, room: AnswerRoom) -> bool:
        """Return whether this call may read on, or wait. The first of those to wait need not."""
        if not self.is_full:
            return True
        self._first = self._first or room
        return self._first is room

    async def turn(self, room: AnswerRoom) -> None:
        """Wait until this call may read on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((room, future))
        try:
            await future
        finally:
            with suppress(ValueError):  # it is there still if the call was cancelled
                self._waiting.remove((room, future))

    def ended(self, room: AnswerRoom) -> None:
        """Let those read on that wait for this room."""
        if self._first is room:
            self._first = None
        while self._waiting:
            waiting, future = self._waiting[0]
            if not future.done():
                if not self.may_go_on(waiting):
                    return
                future.set_result(None)
            self._waiting.popleft()


class AnswerRoom:
    """What a worker holds of the answer to one job: from its first byte to the job's end."""

    def __init__(self, in_flight: InFlight) -> None:
        self.size = 0
        self._in_flight = in_flight

    def hold(self, size: int) -> bool:
        """Count that the answer takes `size` bytes now; return False if its call has to wait."""
        self._in_flight.answers += size - self.size
        self.size = size
        return size <= SMALL or self._in_flight.may_go_on(self)

    async def wait(self) -> None:
        """Wait until there is room for more."""
        await self._in_flight.turn(self)

    def release(self) -> None:
        """Give everything back: the answer is published, or dropped."""
        if self.size:
            self._in_flight.answers -= self.size
            self.size = 0
            self._in_flight.ended(self)
