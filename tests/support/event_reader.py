"""Reads server-sent events of a gateway one by one, as a caller does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any, NamedTuple

from tests.support.child import BUSY
from tests.support.gateway import Gateway


class Event(NamedTuple):
    """One event, as it was sent. `number`: its id, if that is a number."""

    number: int | None
    name: str | None
    data: str
    id: str = ""

    @property
    def json(self) -> Any:
        """Its data, decoded; None for OpenAI's last event."""
        return None if self.data == "[DONE]" else json.loads(self.data)

    @property
    def is_fault(self) -> bool:
        """Whether it tells of a fault."""
        return self.name == "error" or (self.data != "[DONE]" and "error" in self.json)

    @property
    def is_end(self) -> bool:
        """Whether a good answer ends with it."""
        return self.data == "[DONE]" or self.name == "message_stop"

    @property
    def text(self) -> str:
        """The piece of the answer's text in it."""
        found = self.json
        if found is None:
            return ""
        if self.name is not None:
            return str(found.get("delta", {}).get("text", ""))
        return "".join(one["delta"].get("content") or "" for one in found.get("choices", []))


class EventReader:
    """One call that streams. `comments`: the lines that are no events, so far."""

    def __init__(
        self, gateway: Gateway, path: str, body: object, *, timeout_s: float = 60, **headers: str
    ) -> None:
        """Make the call, a GET without a body; it has been answered with its headers."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection = HTTPConnection("127.0.0.1", gateway.port, timeout=timeout_s * BUSY)
        if body is None:
            self._connection.request("GET", path, headers=given)
        else:
            given.setdefault("content-type", "application/json")
            self._connection.request("POST", path, json.dumps(body).encode(), given)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.comments: list[str] = []

    def next(self) -> Event | None:
        """The next event; None at the end, or where the connection broke off."""
        id_, name, data = "", None, None
        while True:
            line = self.line()
            if line is None:
                return None
            field, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif field == "id":
                id_ = value
            elif field == "event":
                name = value
            elif field == "data":
                data = value
            elif not line and data is not None:
                return Event(int(id_) if id_.isdigit() else None, name, data, id_)

    def line(self) -> str | None:
        """The next line; None at the end, or where the connection broke off."""
        try:
            line = self._response.readline().decode().rstrip("\n")
        except (HTTPException, OSError):
            return None
        return None if not line and self._response.isclosed() else line

    def __iter__(self) -> Iterator[Event]:
        while (event := self.next()) is not None:
            yield event

    def read(self) -> bytes:
        """The body of an answer that is no stream."""
        return self._response.read()

    def close(self) -> None:
        """Go away."""
        self._response.close()
        self._connection.close()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
