"""A vendor on a loopback port that records each request to the byte, and gives the answers it has.

It runs in a thread of its own, so asyncio tests, worker processes and commands can all ask it:

    with recording_provider(GivenAnswer({"choices": [...]})) as vendor:
        ...  # base_url=vendor.url; Anthropic's dialect at the same address
        assert vendor.requests[0].body == b"..."

An answer has a body, and may have events, which are sent if the request says `"stream": true`.
The answers are given in their order, and the last one again and again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import orjson


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it came. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body, decoded."""
        return orjson.loads(self.body)


@dataclass(frozen=True)
class GivenAnswer:
    """What the vendor answers: a body, whole and as events.

    Bytes are sent as they are, all else as JSON. An event is its data, or its name and its data.
    `[DONE]` is an event like the others. `chunk`: the stream is cut into pieces of so many bytes;
    0: one piece for each event. `delay_s`: how long the vendor thinks.
    """

    body: object = None
    events: Sequence[object] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunk: int = 0
    delay_s: float = 0

    def pieces(self) -> list[bytes]:
        """Return the events as the bytes on the wire."""
        events = [_event(event) for event in self.events]
        if not self.chunk:
            return events
        sent = b"".join(events)
        return [sent[at : at + self.chunk] for at in range(0, len(sent), self.chunk)]


def anthropic_events(*events: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the events under their names, as Anthropic sends them."""
    return [(event["type"], event) for event in events]


class RecordingProvider:
    """The vendor: its address for `base_url`, its answers, and the requests so far."""

    def __init__(self, answers: Sequence[GivenAnswer]) -> None:
        self.answers = list(answers)
        self.requests: list[RecordedRequest] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Visit)
        self._server.vendor = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """The address for OpenAI's dialect; Anthropic's accepts it, too."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def next_answer(self, request: RecordedRequest) -> GivenAnswer:
        """Record the request and return its answer."""
        with self._lock:
            self.requests.append(request)
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def recording_provider(*answers: GivenAnswer) -> Iterator[RecordingProvider]:
    """Run a recording provider for the time of the block."""
    vendor = RecordingProvider(answers)
    vendor.start()
    try:
        yield vendor
    finally:
        vendor.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    vendor: RecordingProvider


class _Visit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = RecordedRequest(self.command, self.path, headers, body)
        answer = cast(_Server, self.server).vendor.next_answer(request)
        time.sleep(answer.delay_s)
        if answer.events and answer.status == 200 and _streams(body):
            self._send_events(answer)
        else:
            self._send_body(answer)

    def _send_body(self, answer: GivenAnswer) -> None:
        content = _bytes(answer.body)
        self._send_head(answer, {"content-type": "application/json"})
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _send_events(self, answer: GivenAnswer) -> None:
        self._send_head(answer, {"content-type": "text/event-stream"})
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in answer.pieces():
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def _send_head(self, answer: GivenAnswer, headers: Mapping[str, str]) -> None:
        self.send_response(answer.status)
        for name, value in {**headers, **answer.headers}.items():
            self.send_header(name, value)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by the base
        """Log nothing: the requests are recorded."""


def _streams(body: bytes) -> bool:
    try:
        return orjson.loads(body).get("stream") is True
    except (ValueError, AttributeError):
        return False


def _bytes(body: object) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


def _event(event: object) -> bytes:
    name, content = event if isinstance(event, tuple) else ("", event)
    content = content.encode() if isinstance(content, str) else _bytes(content)
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + content + b"\n\n"
