"""Answer a call piece by piece, as server-sent events, while a worker reads them.

Every event has a number, which is its `id`. A caller that lost its connection makes the same call
again with `Last-Event-ID` (or `starting_after`) and gets what follows, from any gateway: the events
of a job are the same however often they are read.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headgate.producer.client.event_stream import EventStream, VendorEvents
from headgate.producer.client.operations import Operations
from headgate.producer.client.waiters import Waiters
from headgate.producer.dialects.streams import ServerEvent
from headgate.producer.errors import JobTimeout, StreamBroken
from headgate.producer.gateway.calls import headers
from headgate.producer.gateway.calls.body import gone
from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.departures import Departures
from headgate.producer.gateway.calls.dialects import stream_of
from headgate.producer.gateway.calls.faults import CallFault, CallRefused, fault_of, fault_of_result
from headgate.producer.gateway.calls.open_streams import OpenStreams
from headgate.producer.gateway.calls.replies import refusal
from headgate.shared.errors import HeadgateError, Unreachable, place_of
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import WaitingFor

log = logging.getLogger("headgate.gateway")

PING_S = 15.0
"""After so many seconds without an event the caller gets a sign of life."""

LOOK_S = 5.0
"""How long a call waits before it is asked whether any worker serves it."""

PINGS = {
    "openai": b": ping\n",
    "responses": b": ping\n",
    "anthropic": b'event: ping\ndata: {"type": "ping"}\n\n',
}

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache",
            "x-accel-buffering": "no"}  # fmt: skip


class Streaming(NamedTuple):
    """What streams need of their gateway."""

    waiters: Waiters
    operations: Operations
    departures: Departures
    open_streams: OpenStreams


async def stream_response(
    at: Streaming, request: Request, call: GatewayCall, job_id: str
) -> Response:
    """Return the stream of the job's answer. A job that fails before its first event is an error.

    The stream has been counted; it is counted off here. Raises what waiting for a result raises.
    """
    events = JobEvents(at, call, job_id)
    try:
        left = asyncio.ensure_future(gone(request))
        first = asyncio.ensure_future(events.begin())
        try:
            await asyncio.wait((first, left), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                at.departures.leave(call, job_id)
                events.close()
                return Response(status_code=499)
            result = first.result()
        finally:
            left.cancel()
            first.cancel()
    except BaseException:
        events.close()
        raise
    if result is not None and result.status != "succeeded" and not call.is_known:
        events.close()
        facts = headers.facts(call, result)
        return refusal(call.dialect, fault_of_result(result), call.request_id, facts)
    known = headers.job_headers(call, job_id) if result is None else headers.facts(call, result)
    return EventsResponse(events, known)


class JobEvents:
    """The events of one job's answer, in the dialect of the call, with their numbers."""

    def __init__(self, at: Streaming, call: GatewayCall, job_id: str) -> None:
        self.call, self.job_id = call, job_id
        self._at = at
        self._stream = EventStream(at.waiters, job_id, pulse_s=min(LOOK_S, max(0.1, call.wait_s)))
        self._translator = stream_of(call, job_id)
        self._first = 0 if call.kind == "responses" else 1  # the number of the first event
        self._number = 0
        self._has_taken = False
        self._ready = b""
        self._ended = False
        self._until = call.began + call.wait_s
        self._ping_at = time.monotonic() + PING_S
        self._is_open, self._is_whole = True, False

    async def begin(self) -> Result | None:
        """Wait for the first event, or the end of the job, or for PING_S; return the result."""
        await self._stream.open()
        if self.call.background and (head := self._text(self._translator.begin())):
            self._ready = head
            return None
        while time.monotonic() < self._ping_at:
            taken = await self._stream.next()
            if taken is None:
                self._require_numbers(self._stream.result)
                return self._stream.result
            if taken.lines:
                self._require_numbers(None)
                self._ready = self._taken(taken)
                return None
            if time.monotonic() > self._until:
                self._at.departures.leave(self.call, self.job_id, resumable=False)
                raise JobTimeout(self.job_id, self.call.wait_s)
            await self._require_worker()
        self._ready = self._ping()
        return None

    def _require_numbers(self, result: Result | None) -> None:
        """Raise CallRefused if a caller goes on with a stream whose events are not kept any more.

        The same if the answer began anew: the caller may have events of the one before.
        Those of an answer that was not streamed, such as a cached one, are always the same.
        """
        is_lost = (
            result is not None and result.status == "succeeded" and result.cached is None
            and self.call.streams and not self._has_taken
        )  # fmt: skip
        is_void = self._stream.gap or self._stream.began_anew
        if self.call.after and (is_void or is_lost):
            words = f"the events of job {self.job_id} are gone; call without Last-Event-ID"
            raise CallRefused("gone", words)

    async def _require_worker(self) -> None:
        if self.call.is_patient:
            return
        try:
            found = await asyncio.to_thread(self._at.operations.end_or_wait, self.job_id)
        except Unreachable:  # a server may come back before the job ends
            return
        if isinstance(found, WaitingFor) and found.kind == "no_worker":
            self._at.departures.leave(self.call, self.job_id, resumable=False)
            words = f"no worker serves {found.name} now"
            raise CallRefused("unavailable", words, retry_after_s=LOOK_S)

    async def next(self) -> bytes | None:
        """Return the next bytes to send; None after the last. A fault is the end of the stream."""
        if self._ready:
            ready, self._ready = self._ready, b""
            return ready
        if self._ended:
            return None
        try:
            taken = await self._stream.next()
            if taken is None:
                if self._stream.broken:
                    raise StreamBroken(self.job_id)
                return self._last(self._stream.result)
            if taken.lines:
                return self._taken(taken)
            if time.monotonic() > self._until:
                words = f"job {self.job_id} has not ended in time"
                return self._broken_off(CallFault("timeout", words))
        except HeadgateError as error:
            return self._broken_off(fault_of(error))
        except Exception as error:  # the caller has begun to read, so the end is one in its dialect
            log.error("a fault of the stream of job %s: %s", self.job_id, place_of(error))
            return self._broken_off(fault_of(HeadgateError()))
        return self._ping()

    def _ping(self) -> bytes:
        """Return a sign of life, if it is time for one."""
        if time.monotonic() < self._ping_at:
            return b""
        self._ping_at = time.monotonic() + PING_S
        return PINGS[self.call.dialect]

    def _taken(self, found: VendorEvents) -> bytes:
        """Return the vendor's events as the caller's dialect has them."""
        self._ping_at = time.monotonic() + PING_S
        self._has_taken = True
        taken = (self._translator.take(found.kind, line) for line in found.lines)
        return self._text(event for events in taken for event in events)

    def _last(self, result: Result | None) -> bytes:
        """Return what is missing of the answer, and its end; or the fault of the job."""
        is_shown = result is not None and self.call.kind == "responses"
        if result is None or not (result.status == "succeeded" or is_shown):
            fault = CallFault("internal", "the job has no result")
            return self._broken_off(fault if result is None else fault_of_result(result))
        self._require_numbers(result)
        self._ended = self._is_whole = True
        events = self._translator.end(result)
        facts = orjson.dumps(headers.facts(self.call, result))
        return b": headgate " + facts + b"\n" + self._text(events)

    def _broken_off(self, fault: CallFault) -> bytes:
        """Return the end of a stream that has none: a fault after the first event."""
        self._ended = True
        self._at.departures.leave(self.call, self.job_id, resumable=False)
        return self._fault(fault)

    def _fault(self, fault: CallFault) -> bytes:
        """Return the events of a fault. They have no number: a caller goes on with what it has."""
        events = self._translator.fail(fault.code, fault.message)
        return b"".join(_event(None, event) for event in events)

    def _text(self, events: Iterable[ServerEvent]) -> bytes:
        """Return the events as they are sent, without those that the caller has already."""
        parts = []
        for event in events:
            self._number += 1
            if self._number > self.call.after:
                parts.append(_event(self._number + self._first - 1, event))
        return b"".join(parts)

    def stop(self) -> bytes:
        """Return the end of a stream whose gateway stops: the caller may go on with another."""
        words = "this gateway is stopping; make the call again with Last-Event-ID to go on"
        return self._fault(CallFault("unavailable", words))

    def leave(self) -> None:
        """Say that the caller has gone away."""
        if not self._ended:
            self._at.departures.leave(self.call, self.job_id)

    def close(self) -> None:
        """Stop reading. Of an answer that the caller has, nothing is stored if the caller wants."""
        if self._is_open:
            self._is_open = False
            if self._is_whole and not self.call.is_stored:
                self._at.departures.shed(self.job_id)
            self._stream.close()
            self._at.open_streams.end(self.call.caller.key_id)


def _event(number: int | None, event: ServerEvent) -> bytes:
    """Return the event as it is sent."""
    id_ = b"" if number is None else b"id: %d\n" % number
    name = f"event: {event.name}\n".encode() if event.name else b""
    return b"%s%sdata: %s\n\n" % (id_, name, event.data)


class SentEvents(Protocol):
    """Events that are sent one after the other."""

    async def next(self) -> bytes | None:
        """Return the next bytes to send, which may be empty; None after the last."""

    def stop(self) -> bytes:
        """Return the end of a stream whose gateway stops."""

    def leave(self) -> None:
        """Say that the caller has gone away."""

    def close(self) -> None:
        """Stop reading."""


class EventsResponse(Response):
    """Sends the events of a job until they end or the caller goes away."""

    def __init__(self, events: SentEvents, facts: headers.Headers) -> None:
        super().__init__(None, 200, headers={**_HEADERS, **facts})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events."""
        events = self._events
        sending = asyncio.ensure_future(self._send_all(send))
        left = asyncio.ensure_future(gone(Request(scope, receive)))
        try:
            await asyncio.wait((sending, left), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            else:
                events.leave()
        except asyncio.CancelledError:  # the time to stop is over
            with suppress(Exception):
                await send({"type": "http.response.body", "body": events.stop()})
        finally:
            left.cancel()
            sending.cancel()
            events.close()

    async def _send_all(self, send: Send) -> None:
        events = self._events
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while (text := await events.next()) is not None:
            if text:  # it waits while the caller does not read
                await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
