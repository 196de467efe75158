"""`GET /v1/jobs/{id}/events`: the text of an answer while it is made, as server-sent events.

The number of an event is how many characters of the answer the reader has with it. So a reader goes
on where it left off, however the answer is cut into pieces, and at any gateway.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.client.delta_reader import claim_of
from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import StreamBroken
from headgate.producer.gateway.calls.own_faults import own_error
from headgate.producer.gateway.calls.streams import EventsResponse
from headgate.producer.gateway.door import Door, own_error_of
from headgate.producer.gateway.jobs.params import (
    once_each,
    require_only,
    seconds_in,
    whole_number_in,
)
from headgate.shared.broker.keys import Keys
from headgate.shared.errors import HeadgateError, InvalidRequest, JobFailed
from headgate.shared.job.encoding import dumps
from headgate.shared.job.result import Result

PULSE_S = 15.0
"""After so many seconds without an event the reader gets a comment, unless it says another time."""

LEAST_PULSE_S = 1.0

LOOK_S = 2.0
"""How often a stream looks whether its gateway stops."""

MOST_CHARACTERS = 10**12

PING = b": ping\n\n"


async def events(door: Door, request: Request) -> Response:
    """Answer with the events of a job of the caller."""
    params = once_each(request)
    require_only(params, "after", "pulse_s")
    pulse_s = max(LEAST_PULSE_S, seconds_in(params, "pulse_s", PULSE_S, PULSE_S))
    after = _after(request, params)
    caller = await door.caller_of(request, "jobs")
    job_id = await door.ownership.require(caller, request.path_params["id"])
    parts = await door.parts()
    if after and await _began_anew(parts.client, (await _keys(door)), job_id):
        raise StreamBroken(job_id)
    door.open_streams.begin(caller.key_id)
    try:
        sent = TextEvents(door, parts.waiters, job_id, after, pulse_s, caller.key_id)
        await sent.open()
    except BaseException:
        door.open_streams.end(caller.key_id)
        raise
    return EventsResponse(sent, {"x-headgate-job-id": job_id})


def _after(request: Request, params: dict[str, str]) -> int:
    """Return how many characters the reader has. A browser that reconnects says it in a header."""
    header = request.headers.get("last-event-id")
    given: dict[str, Any] = {"after": header} if header else params
    return whole_number_in(given, "after", 0, least=0, most=MOST_CHARACTERS)


async def _keys(door: Door) -> Keys:
    return (await asyncio.to_thread(door.operations.open)).keys


async def _began_anew(client: redis.asyncio.Redis, keys: Keys, job_id: str) -> bool:
    """Return whether the pieces of the answer are of two claims: the reader may have the first."""
    pipe = client.pipeline(transaction=False)
    pipe.xrange(keys.deltas(job_id), count=1)
    pipe.xrevrange(keys.deltas(job_id), count=1)
    try:
        first, last = await pipe.execute()
    except RedisError:  # the text itself is compared, too
        return False
    return bool(first) and claim_of(first[0]) != claim_of(last[0])


class TextEvents:
    """The events of one reader: pieces of the text, and at the end the result.

    `after`: how many characters the reader has. They are counted, and not sent again.
    """

    def __init__(
        self, door: Door, waiters: Waiters, job_id: str, after: int, pulse_s: float, key_id: str
    ) -> None:
        self._door, self._job_id, self._key_id = door, job_id, key_id
        self._stream = TextStream(waiters, job_id, None, min(LOOK_S, pulse_s))
        self._after, self._count = after, 0
        self._pulse_s, self._ping_at = pulse_s, time.monotonic() + pulse_s
        self._is_over = self._is_closed = False

    async def open(self) -> None:
        """Begin to read; raise UnknownJob, ResultExpired and Unreachable."""
        try:
            await self._stream.open()
        except (JobFailed, InvalidRequest):  # it has no text; its result is the end
            if self._stream.result is None:
                raise

    async def next(self) -> bytes | None:
        """Return the next bytes to send; None after the last."""
        if self._is_over or self._door.departures.stopping:
            return None
        try:
            return await self._next()
        except (JobFailed, InvalidRequest) as error:
            if self._stream.result is None:
                return self._fault(error)
            return self._end(self._stream.result)
        except Exception as error:
            return self._fault(own_error_of(error, f"for job {self._job_id}"))

    async def _next(self) -> bytes:
        if self._stream.result is not None and self._stream.result.status != "succeeded":
            return self._end(self._stream.result)
        piece = await self._stream.next()
        if piece is None:
            result = self._stream.result
            if result is None or self._count < self._after:
                raise StreamBroken(self._job_id)  # the reader has more than the whole answer
            return self._end(result)
        if not piece:
            return self._ping()
        self._count += len(piece)
        new = piece[max(0, len(piece) - (self._count - self._after)) :]
        return self._event(b"delta", dumps({"text": new}), self._count) if new else b""

    def _event(self, name: bytes, data: bytes, number: int | None = None) -> bytes:
        self._ping_at = time.monotonic() + self._pulse_s
        id_ = b"" if number is None else b"id: %d\n" % number
        return b"%sevent: %s\ndata: %s\n\n" % (id_, name, data)

    def _end(self, result: Result) -> bytes:
        self._is_over = True
        return self._event(b"end", dumps(result.as_json()))

    def _fault(self, error: HeadgateError) -> bytes:
        self._is_over = True
        return self._event(b"error", dumps({"error": own_error(error)}))

    def _ping(self) -> bytes:
        """Return a sign of life, if it is time for one."""
        if time.monotonic() < self._ping_at:
            return b""
        self._ping_at = time.monotonic() + self._pulse_s
        return PING

    def stop(self) -> bytes:
        """Return nothing: the reader comes back with the number of its last event."""
        return b""

    def leave(self) -> None:
        """Do nothing: the job goes on without its reader."""

    def close(self) -> None:
        """Stop reading."""
        if not self._is_closed:
            self._is_closed = True
            self._stream.close()
            self._door.open_streams.end(self._key_id)
