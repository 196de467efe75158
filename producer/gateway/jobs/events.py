"""`GET /v1/jobs/{id}/events`: the text of an answer while it is made, as server-sent events.

The id of an event is a place in the answer, and not a number: see `producer/client/pieces.py`. So a
reader goes on where it left off, however the answer is cut into pieces, and at any gateway.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Waiters
from headgate.producer.gateway.calls.own_faults import own_error
from headgate.producer.gateway.calls.streams import EventsResponse
from headgate.producer.gateway.door import Door, own_error_of
from headgate.producer.gateway.jobs.callers import caller_for
from headgate.producer.gateway.jobs.params import once_each, require_only, seconds_in
from headgate.shared.errors import HeadgateError, InvalidRequest, JobFailed
from headgate.shared.job.encoding import dumps
from headgate.shared.job.result import Result

PULSE_S = 15.0
"""After so many seconds without an event the reader gets a comment, unless it says another time."""

LEAST_PULSE_S = 1.0

LOOK_S = 2.0
"""How often a stream looks whether its gateway stops."""

PING = b": ping\n\n"


async def events(door: Door, request: Request) -> Response:
    """Answer with the events of a job of the caller."""
    params = once_each(request)
    require_only(params, "after", "pulse_s")
    pulse_s = max(LEAST_PULSE_S, seconds_in(params, "pulse_s", PULSE_S, PULSE_S))
    # A browser that reconnects keeps its address, and says in a header what it has.
    after = request.headers.get("last-event-id") or params.get("after") or "0"
    caller = await caller_for(door, request, "jobs")
    job_id = await door.ownership.require(caller, request.path_params["id"])
    waiters = (await door.parts()).waiters
    sent = TextEvents(door, waiters, job_id, after, pulse_s, caller.key_id)
    await sent.open()
    return EventsResponse(sent, {"x-headgate-job-id": job_id})


class TextEvents:
    """The events of one reader: pieces of the text, and at the end the result.

    `after`: what the reader has of the answer, as the id of an event or as characters. `key_id`:
    the key whose open streams are counted.
    """

    def __init__(
        self, door: Door, waiters: Waiters, job_id: str, after: str, pulse_s: float, key_id: str
    ) -> None:
        self._door, self._job_id, self._key_id = door, job_id, key_id
        self._stream = TextStream(waiters, job_id, None, min(LOOK_S, pulse_s), after)
        self._pulse_s, self._ping_at = pulse_s, time.monotonic() + pulse_s
        self._is_open = self._is_over = False

    async def open(self) -> None:
        """Begin to read; raise UnknownJob, ResultExpired, Unreachable, and CallRefused."""
        self._door.open_streams.begin(self._key_id)
        self._is_open = True
        try:
            await self._stream.open()
        except (JobFailed, InvalidRequest):  # it has no text; its result is the end
            if self._stream.result is None:
                self.close()
                raise
        except BaseException:
            self.close()
            raise

    async def next(self) -> bytes | None:
        """Return the next bytes to send; None after the last."""
        if self._is_over or self._door.departures.stopping:
            return None
        result = self._stream.result
        if result is not None and result.status != "succeeded":
            return self._end(result)
        try:
            piece = await self._stream.next()
        except (JobFailed, InvalidRequest) as error:
            result = self._stream.result
            return self._fault(error) if result is None else self._end(result)
        except Exception as error:
            return self._fault(own_error_of(error, f"for job {self._job_id}"))
        if piece is None:
            result = self._stream.result
            return self._fault(HeadgateError()) if result is None else self._end(result)
        if not piece:
            return self._ping()
        return self._event(b"delta", dumps({"text": str(piece)}), piece.after)

    def _event(self, name: bytes, data: bytes, place: str = "") -> bytes:
        self._ping_at = time.monotonic() + self._pulse_s
        id_ = f"id: {place}\n".encode() if place else b""
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
        """Return nothing: the reader comes back with the id of its last event."""
        return b""

    def leave(self) -> None:
        """Do nothing: the job goes on without its reader."""

    def close(self) -> None:
        """Stop reading."""
        if self._is_open:
            self._is_open = False
            self._stream.close()
            self._door.open_streams.end(self._key_id)
