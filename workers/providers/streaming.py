"""Reads answers that come in pieces: hands their text on at once, and puts the whole together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import orjson

from headgate.shared.job.request import Dialect, Request
from headgate.shared.job.result import Usage
from headgate.workers.errors import ConnectionLost, ResponseTooLarge
from headgate.workers.provider import AnswerSink, MadePart, Room
from headgate.workers.providers.event_tap import EventTap
from headgate.workers.providers.http import HttpPool, Response
from headgate.workers.providers.json_body import decoded_or_raise, dumped, texts_of
from headgate.workers.providers.lenient_json import may_have_halves, read_json, without_halves
from headgate.workers.providers.refusals import (
    masked_or_none,
    refusal,
    request_id,
    unusable,
    without_key,
)
from headgate.workers.providers.reply_fields import fields_of, storable
from headgate.workers.providers.sse import Event, EventParser

LARGE = 1024 * 1024
"""After a larger answer was read, the other jobs of the worker have a turn: 1 MB takes 10 ms."""


async def post_and_decode(
    http: HttpPool,
    path: str,
    body: dict[str, Any],
    request: Request,
    key: str,
    *,
    timeout_s: float,
    idle_s: float | None,
    into: AnswerStream | None,
    room: Room | None,
    headers: Mapping[str, str] | None = None,
) -> tuple[Response, dict[str, Any]]:
    """Post a request, and return the response with the decoded answer, streamed or not.

    `headers`: those of this call alone.

    Raises one of the AttemptErrors.
    """
    content = dumped(body)
    try:
        response = await http.post(
            path, content, timeout_s=timeout_s, idle_s=idle_s, into=into, room=room, headers=headers
        )
        response = without_key(response, key)
        if into is not None and response.streamed:
            return response, into.whole_or_raise(response, request, key)
    except BaseException as error:  # also when the job is cancelled
        if into is not None:
            into.broke_off()
        if isinstance(error, ResponseTooLarge):
            error.request_id = masked_or_none(error.request_id, key)
        raise
    size = len(response.content)
    decoded = decoded_or_raise(response, request, key)
    if size > LARGE:
        # Its bytes go now: what was read of them takes as much memory, or more.
        response = replace(response, content=b"")
        await asyncio.sleep(0)
    return response, decoded


class AnswerParts(Protocol):
    """Puts one answer together from a vendor's events.

    `dialect`: whose events they are. `begun`: a part of the answer has come, and not only the head
    of its stream. `ended`: the answer is complete, but usage may still follow. `is_last`: nothing
    follows.
    """

    dialect: Dialect
    begun: bool
    ended: bool
    is_last: bool

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the answer takes."""

    def take(self, event: dict[str, Any]) -> None:
        """Add the event to the answer and hand its text on."""

    def so_far(self) -> tuple[object, str]:
        """Return the usage that has come in the vendor's form, and the texts of all kinds."""

    def whole(self) -> dict[str, Any]:
        """Return the answer as if it had come whole."""


class AnswerStream:
    """The stream of one answer: reads its events, and notices faults and a broken connection.

    `sink`: what takes the vendor's events as they are, if it wants them. `key`: the API key, which
    is masked in them. `read_usage` reads the vendor's usage.
    """

    def __init__(
        self,
        parts: AnswerParts,
        sink: AnswerSink | None = None,
        key: str = "",
        read_usage: Callable[[object], tuple[Usage, bool]] = lambda _: (Usage(), False),
    ) -> None:
        self._parts = parts
        self._sink = sink
        self._read_usage = read_usage
        self._tap = EventTap(sink, parts, key) if sink is not None and sink.wants_events else None
        self._events = EventParser()
        self._begun = False
        self._over = False
        self._fault: bytes | None = None
        self._garbled = False
        self._halved = False

    @property
    def ended(self) -> bool:
        """True once the answer is complete. Usage may still follow."""
        return self._parts.ended

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the answer takes."""
        held = 0 if self._sink is None else self._sink.size
        return self._events.size + self._parts.size + held

    def feed(self, chunk: bytes) -> bool:
        """Read a piece; return True once nothing more is expected."""
        return self._take_all(self._events.feed(chunk))

    def broke_off(self) -> None:
        """Tell the sink what was made until now."""
        if self._sink is not None and self._begun:
            usage, text = self._parts.so_far()
            self._sink.broke_off(MadePart(self._read_usage(usage)[0], without_halves(text)))

    def whole_or_raise(self, response: Response, request: Request, key: str) -> dict[str, Any]:
        """Return the answer as if it had come whole; raises the error that ended the stream."""
        if not self._over:
            self._take_all(self._events.rest(), last=True)
        if self._fault is not None:
            error = refusal(replace(response, content=self._fault), texts_of(request), key)
            if self._begun:  # what came until then may be billed
                error.billed = None
            raise error
        if self._garbled:
            raise unusable(response, "a piece of its stream is not JSON")
        if not self.ended:
            raise ConnectionLost(
                "the connection broke: the stream stops before its end",
                http_status=response.status, billed=None, request_id=request_id(response.headers),
            )  # fmt: skip
        whole = self._parts.whole()
        return without_halves(storable(whole)) if self._halved else whole

    def _take_all(self, events: list[Event], *, last: bool = False) -> bool:
        for name, content in events:
            if self._over:
                break
            if content == b"[DONE]":
                self._parts.ended = self._over = True
                break
            try:
                event, is_proper = _read(content)
            except ValueError:
                if not last:  # the last may be cut off: then the stream's end is missing too
                    self._garbled = self._over = True
                break
            fault = _fault_in(name, event, content)
            if fault is not None:
                if "response" in fields_of(event):
                    self._parts.take(event)  # its usage is billed
                self._fault, self._over = fault, True
                break
            self._begun = True
            self._halved = self._halved or (not is_proper and may_have_halves(content))
            try:
                self._parts.take(fields_of(event))
            except RecursionError:  # nested deeper than any answer
                self._garbled = self._over = True
                break
            if self._tap is not None:
                self._tap.take(event, content if is_proper else None)
            self._over = self._parts.is_last
        return self._over


def _fault_in(name: str, event: Any, content: bytes) -> bytes | None:
    """Return the body of the error that the event stands for; None if it is none.

    `response.failed` has its error in the Response, of which nothing else is read.
    """
    fields = fields_of(event)
    if fields.get("type") == "response.failed":
        return dumped({"error": fields_of(fields.get("response")).get("error") or {}})
    is_error = name == "error" or fields.get("type") == "error" or fields.get("error")
    return content if is_error else None


def _read(content: bytes) -> tuple[Any, bool]:
    """Return the event in these bytes, and whether they are proper JSON; raise ValueError."""
    try:
        return orjson.loads(content), True
    except ValueError:
        return read_json(content, keep_halves=True), False
