"""HTTP/1.1 as the gateway speaks it: no caller can hold a connection or memory for nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headgate.producer.dialects.errors import DoorCode
from headgate.producer.gateway.calls.call import new_request_id
from headgate.producer.gateway.calls.dialects import dialect_at
from headgate.producer.gateway.calls.faults import CallFault
from headgate.producer.gateway.calls.replies import refusal
from headgate.shared.errors import ErrorCode

MOST_HEADER_BYTES = 64 * 1024
"""The most that the address and the headers of one request may take."""

SLOW_S = 60.0
"""How long a caller may read nothing of an answer before its connection is dropped."""

MOST_UNREAD_BYTES = 8 * 1024
"""A stream waits with its next event while more than this has not left for its caller, here and in
the kernel, each."""

LINGER_S = 2.0
"""So long the rest of a body is thrown away that was refused before its end. A connection that is
closed before that would be reset, and its caller might never see why."""


class HeadersRefused(Exception):
    """Stops the parser: the connection is being closed."""


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose headers are bounded in size and in time, and whose faults are in a dialect."""

    headers_within_s = 60.0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._clock: asyncio.TimerHandle | None = None
        self._refused = False
        self._slow_clock: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=MOST_UNREAD_BYTES)
        _keep_little_unsent(transport.get_extra_info("socket"))
        self._begin_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        self._stop_slow_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers; close the connection of endless ones."""
        if self._refused:
            return
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MOST_HEADER_BYTES:
            self._refuse_large()
        elif self._clock is None and self._is_idle():
            self._wait_for_request()  # empty lines between requests have stopped that clock

    def on_message_begin(self) -> None:
        """Start the clock of a request's headers."""
        super().on_message_begin()
        self._begin_headers()

    def on_headers_complete(self) -> None:
        """Stop the clock: the body has one of its own."""
        self._stop_clock()
        self._in_headers = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MOST_HEADER_BYTES:
            self._refuse_large()
            raise HeadersRefused
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Throw away what is left of the body, for a while."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._start_clock(LINGER_S, self.transport.close)

    def on_message_complete(self) -> None:
        """Wait for the next request if this one has been answered before its end."""
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.cycle.more_body = False
            self._stop_clock()
            self._wait_for_request()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, or drop it if its caller has not read the answer."""
        if self.transport.get_write_buffer_size():
            self._watch_reader(self.transport.get_write_buffer_size())
        super().timeout_keep_alive_handler()

    def pause_writing(self) -> None:
        """Wait with the next event until the caller has read more; drop one that never does."""
        super().pause_writing()
        self._watch_reader(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on with the next event."""
        self._stop_slow_clock()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Say what is wrong with the bytes of a request, in the form of its dialect."""
        self._refuse("invalid_request", "this is no HTTP/1.1 request")

    def _begin_headers(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        self._start_clock(self.headers_within_s, self._refuse_late)

    def _refuse_late(self) -> None:
        words = f"the headers took over {self.headers_within_s:g} s (HEADGATE_GATEWAY_BODY_S)"
        self._refuse("request_timeout", words)

    def _refuse_large(self) -> None:
        words = f"the headers are larger than {MOST_HEADER_BYTES // 1024} KB"
        self._refuse("headers_too_large", words)

    def _refuse(self, code: ErrorCode | DoorCode, words: str) -> None:
        """Answer what never became a request, and close the connection.

        While answers to requests before it are under way, the connection ends with the last one.
        """
        if self._refused or self.transport is None or self.transport.is_closing():
            return
        self._refused = True
        cycle = self.cycle
        is_own_body = not self._in_headers and cycle is not None and not cycle.response_started
        if cycle is None or cycle.response_complete or (is_own_body and not self.pipeline):
            self.transport.write(self._refusal(code, words))
            self.transport.close()
        else:
            cycle.keep_alive = False

    def _refusal(self, code: ErrorCode | DoorCode, words: str) -> bytes:
        """Return the answer, in the dialect of what has come of the request."""
        is_begun = self.headers is not None
        names = {name.decode("latin-1") for name, _ in self.headers} if is_begun else set()
        path = self.url.decode("latin-1") if is_begun else ""
        response = refusal(dialect_at(path, names), CallFault(code, words), new_request_id())
        phrase = HTTPStatus(response.status_code).phrase
        lines = [f"HTTP/1.1 {response.status_code} {phrase}".encode()]
        lines += [b"%s: %s" % pair for pair in response.raw_headers]
        return b"\r\n".join([*lines, b"connection: close", b"", bytes(response.body)])

    def _watch_reader(self, unread: int) -> None:
        """Drop the connection unless the caller reads some of these bytes within `SLOW_S`."""
        self._stop_slow_clock()
        self._slow_clock = self.loop.call_later(SLOW_S, self._drop_slow, unread)

    def _drop_slow(self, unread: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and left >= unread:
            self.transport.abort()
        elif left:
            self._watch_reader(left)

    def _stop_slow_clock(self) -> None:
        if self._slow_clock is not None:
            self._slow_clock.cancel()
            self._slow_clock = None

    def _is_idle(self) -> bool:
        """Whether no request is under way on an open connection."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        is_waiting = self.timeout_keep_alive_task is not None
        return is_answered and not (is_waiting or self._refused or self.transport.is_closing())

    def _wait_for_request(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _start_clock(self, after_s: float, act: Callable[[], None]) -> None:
        self._stop_clock()
        self._clock = self.loop.call_later(after_s, act)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


def _keep_little_unsent(connection: Any) -> None:
    """Let the kernel take only what it can soon send: else it takes megabytes for each caller."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # not on every system
    if option is not None and connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, MOST_UNREAD_BYTES)
