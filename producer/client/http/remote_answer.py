"""Read the text of one answer over HTTP while it is made.

A lost connection is opened again, and the gateway goes on behind the last piece: see
`producer/client/pieces.py`. So no piece is lost or comes twice, also when the gateway starts anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import orjson
from aiohttp import StreamReader

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.client.arguments import require_job_id, require_seconds
from headgate.producer.client.http.address import job_path
from headgate.producer.client.http.connections import LOST, Connections
from headgate.producer.client.http.ends import JobEnds
from headgate.producer.client.http.one_job import no_job, result_in
from headgate.producer.client.http.patience import Patience
from headgate.producer.client.http.server_events import ReadEvent, events_in
from headgate.producer.client.pieces import PieceCutter, TextPiece
from headgate.producer.dialects.own_errors import error_from
from headgate.producer.dialects.pieces import replayed
from headgate.producer.errors import StreamBroken, answer_of
from headgate.shared.errors import InvalidRequest, Unreachable
from headgate.shared.job.encoding import dumps, loads
from headgate.shared.job.result import Result

PULSE_S = 15.0
"""How often the gateway gives a sign of life, if there is no piece."""

SILENCE_S = 45.0
"""After so many seconds without one the connection is lost."""

PAUSE_S = 0.1
"""The wait before a lost connection is opened again; it doubles with each try."""

STEADY_S = 10.0
"""A connection that gave signs of life for so long was a good one: its end begins a new minute."""

LAST = ("end", "error")
"""The names of events after which no other comes."""

MOST_PIECES = 64
"""A reader that has so many pieces to take gets no more; the rest waits at the gateway."""


class RemoteAnswer:
    """One reader of one job's answer. Its arguments are those of `TextStream`."""

    def __init__(
        self,
        at: Connections,
        ends: JobEnds,
        job_id: str,
        timeout_s: float | None,
        pulse_s: float | None,
        after: int | str,
    ) -> None:
        require_job_id(job_id)
        require_seconds("timeout_s", timeout_s)
        require_seconds("pulse_s", pulse_s)
        no_job(job_id)
        self._place = self._read_until = _place_of(after)
        self._at, self._ends, self._job_id = at, ends, job_id
        self._timeout_s, self._pulse_s = timeout_s, pulse_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._events_read: deque[ReadEvent | Exception] = deque()
        self._changed, self._has_room = asyncio.Event(), asyncio.Event()
        self._rest: deque[TextPiece] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._is_over = self._is_cut_off = False
        self._alive_s = 0.0

    def open(self) -> None:
        """Begin to read."""
        self._at.require_open()
        self._reading = asyncio.create_task(self._read(), name="read an answer")

    async def next(self) -> TextPiece | None:
        """Return the next piece, "" if none came for `pulse_s`, None after the last.

        Raises JobFailed, StreamBroken, JobTimeout, UnknownJob, ResultExpired and Unreachable.
        """
        while self._rest is None:
            if self._is_over:
                return None
            event = await self._next_event()
            if event is None:
                return TextPiece("", self._place)
            piece = self._taken(event)
            if piece is not None:
                self._place = piece.after
                return piece
        return self._rest.popleft() if self._rest else None

    def close(self) -> None:
        """Stop reading."""
        self._is_over = True
        if self._reading is not None:
            self._reading.cancel()

    async def _next_event(self) -> ReadEvent | Exception | None:
        """Return the next event, None after `pulse_s`, or the end when the time is over."""
        left_s = None if self._until is None else max(0.0, self._until - time.monotonic())
        waits = [one for one in (left_s, self._pulse_s) if one is not None]
        try:
            async with asyncio.timeout(min(waits) if waits else None):
                while not self._events_read:
                    if self._is_cut_off:  # the client was closed
                        raise asyncio.CancelledError
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            if self._until is None or time.monotonic() < self._until:
                return None
            result = await self._ends.end_now(self._job_id, self._timeout_s or 0)
            return ReadEvent("end", "", dumps(result.as_json()))
        self._has_room.set()
        return self._events_read.popleft()

    def _taken(self, event: ReadEvent | Exception) -> TextPiece | None:
        """Return the piece of the event; end with any other, and raise what it tells of."""
        if isinstance(event, Exception):
            self.close()
            raise event
        if event.name == "delta":
            return TextPiece(orjson.loads(event.data)["text"], event.id)
        self.close()
        if event.name == "error":
            raise error_from(loads(event.data))
        self._end_with(result_in(loads(event.data)))
        return None

    def _end_with(self, result: Result) -> None:
        """Keep what is left of the answer; raise JobFailed and StreamBroken."""
        content = answer_of(result).content or ""
        if result.embeddings is not None:
            raise InvalidRequest("job", self._job_id, "embeddings have no text; ask for its result")
        cutter = PieceCutter(self._place)
        try:
            pieces = [cutter.cut(text) for text in replayed(content)]
        except ValueError:
            raise StreamBroken(self._job_id) from None
        if cutter.is_behind:
            raise StreamBroken(self._job_id)
        self._rest = deque(piece for piece in pieces if piece is not None)

    async def _read(self) -> None:
        """Keep the events until the last one, or until what ends the reading."""
        try:
            await self._read_on()
        except Exception as error:
            await self._keep(error)
        finally:
            self._is_cut_off = True
            self._changed.set()

    async def _read_on(self) -> None:
        patience = Patience(PAUSE_S)
        while True:
            fault: Exception = self._at.lost(ConnectionResetError())  # the gateway has stopped
            try:
                async with aclosing(self._events()) as events:
                    async for event in events:
                        patience.reset()
                        await self._keep(event)
                        if event.name in LAST:
                            return
            except LOST as error:
                fault = self._at.lost(error)
            except (Unreachable, KeyRefused) as error:
                fault = error
            if self._alive_s >= STEADY_S:
                patience.reset()
            pause_s = patience.pause_s(fault)
            if pause_s is None:
                raise fault
            await asyncio.sleep(pause_s)

    async def _events(self) -> AsyncGenerator[ReadEvent, None]:
        """Yield the events behind what was read until now, as long as the connection lasts."""
        query = {"after": self._read_until, "pulse_s": str(PULSE_S)}
        path = job_path(self._job_id, "events")
        self._alive_s = 0.0
        async with self._at.stream(path, query, SILENCE_S) as content:
            async for event in events_in(self._timed(content)):
                self._read_until = event.id or self._read_until
                yield event

    async def _timed(self, content: StreamReader) -> AsyncIterator[bytes]:
        """Yield the bytes as they come, and take down how long they do."""
        began = time.monotonic()
        async for chunk in content.iter_any():
            self._alive_s = time.monotonic() - began
            yield chunk

    async def _keep(self, event: ReadEvent | Exception) -> None:
        """Keep what the reader takes later; wait while it has a lot to take."""
        while len(self._events_read) >= MOST_PIECES:
            self._has_room.clear()
            await self._has_room.wait()
        self._events_read.append(event)
        self._changed.set()


def _place_of(after: int | str) -> str:
    """Return the place as text; raise InvalidRequest if it is none."""
    PieceCutter(after)
    return str(after)
