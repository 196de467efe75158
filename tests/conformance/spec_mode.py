"""Stands before a gateway and gives made-up ids of the vendors' own tests a real response.

Their tests were written for a mock that answers any id. `resp_677...` becomes the id of a response
that is made for this call; all else passes as it is.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

NAMED = re.compile(r"^/v1/responses/(resp_[^/?]*|response_id)(?=[/?]|$)")
MADE_UP = ("previous_response_id", "conversation")
"""Fields of a body that name what the mock has and nobody else."""

NO_MODEL = (None, "model")
"""What the mock takes for a model of a response."""

PASSED = ("authorization", "content-type", "x-api-key", "anthropic-version", "anthropic-beta")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    gateway = ""


class _Visit(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        self._pass_on()

    def do_GET(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = NAMED.sub(self._real, self.path).replace("/model_id", "/claude-haiku-4-5")
        headers = {name: self.headers[name] for name in PASSED if name in self.headers}
        if path.startswith("/v1/responses"):
            body = _without_made_up(body)
        status, kind, content = self._ask(self.command, path, body, headers)
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _real(self, _match: re.Match[str]) -> str:
        """Return the address of a response that was made just now."""
        asked: dict[str, Any] = {"model": "gpt-4o-mini", "input": "hello"}
        if "cancel" in self.path or "stream" in self.path:
            asked |= {"background": True, "stream": False}
        headers = {"content-type": "application/json"}
        made = self._ask("POST", "/v1/responses", json.dumps(asked).encode(), headers)[2]
        return f"/v1/responses/{json.loads(made).get('id', 'none')}"

    def _ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        address = urlsplit(cast(_Server, self.server).gateway)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=60)
        try:
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            kind = response.headers.get("content-type", "application/json")
            return response.status, kind, response.read()
        finally:
            connection.close()


def _without_made_up(body: bytes) -> bytes:
    try:
        fields = json.loads(body)
    except ValueError:
        return body
    if not isinstance(fields, dict):
        return body
    fields = {name: value for name, value in fields.items() if name not in MADE_UP}
    if fields.get("model") in NO_MODEL:
        fields["model"] = "gpt-4o-mini"
    return json.dumps(fields).encode()


@contextmanager
def spec_mode(gateway: str) -> Iterator[str]:
    """Yield the base address before this gateway."""
    server = _Server(("127.0.0.1", 0), _Visit)
    server.gateway = gateway
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
