"""Read the vendor's events of one answer while it is made, and its result at the end."""

from __future__ import annotations

import asyncio
import time
from typing import Literal, NamedTuple, Self, TypeAlias

from headgate.producer.client.arguments import require_seconds
from headgate.producer.client.delta_reader import DeltaReader, Fields
from headgate.producer.client.waiters import Waiters
from headgate.shared.job.result import Result

DRAIN_S = 20.0
"""So long the last events are waited for after the end of a job, where Redis does not answer."""

EventKind: TypeAlias = Literal["openai", "anthropic", "responses", "text"]


class VendorEvents(NamedTuple):
    """Some of the vendor's events, each as JSON in one line, and in whose dialect they are.

    Of kind "text" each line is a piece of the text in UTF-8, from a worker of a release before.
    """

    kind: EventKind
    lines: list[bytes]


PULSE = VendorEvents("text", [])
"""No event came for a while."""

_KINDS: dict[bytes, EventKind] = {
    b"openai": "openai", b"anthropic": "anthropic", b"responses": "responses",
}  # fmt: skip


class EventStream:
    """One reader of one job's events. Use it in the event loop of its waiters only.

    It begins with the first event, also when the job has ended already: every reader gets the same
    events, unless Redis has lost some. An answer that was not streamed, such as a cached one, has
    none. `pulse_s`: after how many seconds without an event `next` returns PULSE; None: never.

    Once `next` has returned None:

    `result`: the end of the job, however it ended; None if the stream is broken. `broken`: events
    were handed out, and then another worker began the answer anew: they are void. `gap`: events
    were lost, so none was handed out after them; the result has the whole answer.
    """

    def __init__(self, waiters: Waiters, job_id: str, pulse_s: float | None = None) -> None:
        require_seconds("pulse_s", pulse_s)
        self.result: Result | None = None
        self.broken = False
        self.gap = False
        self._waiters = waiters
        self._job_id = job_id
        self._pulse_s = pulse_s
        self._reader: DeltaReader | None = None
        self._ended: asyncio.Future[Result] | None = None
        self._claim: int | None = None
        self._drained_by: float | None = None
        self._is_over = False

    @property
    def began_anew(self) -> bool:
        """Whether another claim has written events of this answer before, which are void."""
        reader = self._reader
        return reader is not None and (reader.claims > 1 or reader.has_skipped)

    async def open(self) -> None:
        """Begin to read."""
        reader = self._reader = self._waiters.deltas.open(self._job_id)
        self._ended = asyncio.ensure_future(self._waiters.ended(self._job_id))
        self._ended.add_done_callback(lambda _: reader.changed.set())

    async def next(self) -> VendorEvents | None:
        """Return the next events, PULSE if none came for `pulse_s`, None after the last.

        Raises what waiting for the result raises: UnknownJob, ResultExpired and Unreachable.
        """
        while not self._is_over:
            reader, ended = self._reader, self._ended
            if reader is None or ended is None:
                return None
            reader.changed.clear()
            if self._claim is not None and reader.claims != self._claim:
                self.broken = self._is_over = True
                break
            if ended.done() and self._is_last(reader, ended.result()):
                break
            if not reader.is_empty:
                found = self._take(reader)
                if found.lines:
                    return found
            elif not await self._wait_for_more(reader):
                return PULSE
        return None

    def close(self) -> None:
        """Stop reading."""
        self._is_over = True
        self._waiters.stop_reading(self._reader, self._ended)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def _is_last(self, reader: DeltaReader, result: Result) -> bool:
        """Return whether no event is left to hand out of a job that has ended."""
        if result.cached is None and not reader.has_gap:
            reader.drain()
            if self._drained_by is None:
                self._drained_by = time.monotonic() + DRAIN_S
            is_late = time.monotonic() >= self._drained_by
            if not reader.is_empty or not (reader.is_drained or is_late):
                return False
            self.gap = not reader.is_drained
        elif not reader.is_empty and result.cached is None:
            return False
        self.gap = self.gap or reader.has_gap
        self.result = result
        self._is_over = True
        return True

    def _take(self, reader: DeltaReader) -> VendorEvents:
        """Take all events that are there, as far as they are of one kind."""
        lines: list[bytes] = []
        kind = reader.next_kind
        while not reader.is_empty and reader.next_kind == kind:
            lines += _lines(reader.take())
        self._claim = reader.claims
        self._drained_by = None
        return VendorEvents(_KINDS.get(kind, "text"), lines)

    async def _wait_for_more(self, reader: DeltaReader) -> bool:
        """Return True when there is something new, False after `pulse_s`."""
        wait_s = self._pulse_s
        if self._drained_by is not None:
            left_s = max(0.0, self._drained_by - time.monotonic())
            wait_s = left_s if wait_s is None else min(wait_s, left_s)
        try:
            async with asyncio.timeout(wait_s):
                await reader.changed.wait()
        except TimeoutError:
            return self._drained_by is not None
        return True


def _lines(fields: Fields | None) -> list[bytes]:
    if fields is None:
        return []
    if b"k" in fields:
        return [line for line in fields[b"e"].split(b"\n") if line]
    return [fields[b"d"]] if fields[b"d"] else []
