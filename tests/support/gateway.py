"""The gateway as a process of its own, and a whole installation around it."""

from __future__ import annotations

import io
import json
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from sqlalchemy import select

from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import jobs
from tests.support.celery_nodes import WorkerProcess
from tests.support.child import BUSY, ChildProcess
from tests.support.command import PROGRAM, headgate
from tests.support.installation import ended_afterwards, worker_process
from tests.support.servers import Simulator, ValkeyServer, free_port


class Gateway(ChildProcess):
    """`headgate gateway`, open to this machine unless `env` says otherwise."""

    forks = True

    def __init__(
        self, env: Mapping[str, str], folder: Path, *flags: str, name: str = "gateway"
    ) -> None:
        """Prepare a gateway on a free port."""
        self.port = free_port()
        argv = [*PROGRAM, "gateway", "--port", str(self.port), *flags]
        open_env = {"HEADGATE_GATEWAY_OPEN": "1", **env}
        super().__init__(argv, env=open_env, log_path=folder / f"{name}.log")

    @property
    def url(self) -> str:
        """The base address, such as http://127.0.0.1:15123."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """Whether the process answers."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/health/live", timeout=5) as got:  # noqa: S310 (loopback)
            return bool(got.status == 200)
        return False


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer over HTTP. The names of headers are in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


def ask(
    gateway: Gateway,
    path: str,
    body: object = None,
    *,
    method: str | None = None,
    timeout_s: float = 60,
    **headers: str,
) -> Answered:
    """The answer to one request; names of headers are given with `_` in place of `-`."""
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if data is not None:
        given.setdefault("content-type", "application/json")
    connection = HTTPConnection("127.0.0.1", gateway.port, timeout=timeout_s * BUSY)
    try:
        connection.request(method or ("GET" if data is None else "POST"), path, data, given)
        return _answered(connection.getresponse())
    finally:
        connection.close()


def _answered(response: HTTPResponse) -> Answered:
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answered(response.status, headers, response.read())


def events_in(body: bytes) -> list[tuple[int | None, str | None, str]]:
    """The server-sent events of a body: number, name and data; comments are left out."""
    found = []
    for block in body.decode().split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value
        if "data" in fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((number, fields.get("event"), fields["data"]))
    return found


def raw(gateway: Gateway, data: bytes, *, timeout_s: float = 30) -> socket.socket:
    """A connection on which these bytes were sent."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout_s * BUSY)
    connection.sendall(data)
    return connection


class _Kept(io.BufferedReader):
    """A file that stays open when the answer that was read from it is closed."""

    def close(self) -> None:
        pass


class Wire:
    """One connection to a gateway, byte for byte."""

    def __init__(self, gateway: Gateway, data: bytes = b"", *, timeout_s: float = 30) -> None:
        self.socket = raw(gateway, data, timeout_s=timeout_s)
        self._file = _Kept(socket.SocketIO(self.socket, "r"))

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `HTTPResponse` reads from."""
        return self._file

    def send(self, data: bytes) -> Wire:
        """Send these bytes."""
        self.socket.sendall(data)
        return self

    def answer(self) -> Answered:
        """The next answer."""
        response = HTTPResponse(self)  # type: ignore[arg-type]  # all that it needs
        response.begin()
        return _answered(response)

    def is_closed(self) -> bool:
        """Whether the gateway closes the connection, and has sent nothing more."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._file.raw.close()
        self.socket.close()


def request_bytes(
    path: str, body: object = None, *, method: str = "POST", **headers: str | None
) -> bytes:
    """A request as it is sent; a header that is None is left out."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    given: dict[str, str | None] = {
        "host": "127.0.0.1", "content-type": "application/json", "content-length": str(len(data)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in given.items() if value is not None]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""])
    return head.encode("latin-1") + data


@dataclass(frozen=True, slots=True)
class House:
    """A gateway, a worker and a simulated provider on one Valkey and one database."""

    gateway: Gateway
    worker: WorkerProcess
    simulator: Simulator
    env: dict[str, str]

    def statuses(self) -> list[str]:
        """How the jobs stand on record, the newest first."""
        engine = open_engine(self.env["HEADGATE_DATABASE_URL"])
        try:
            with reading(engine) as connection:
                query = select(jobs.c.status).order_by(
                    jobs.c.submitted_at_ms.desc(), jobs.c.id.desc()
                )
                return list(connection.scalars(query))
        finally:
            engine.dispose()


@contextmanager
def house(
    valkey: ValkeyServer,
    database_url: str,
    simulator: Simulator,
    folder: Path,
    *flags: str,
    **settings: str,
) -> Iterator[House]:
    """The house runs. Settings are given by their names without HEADGATE_, in small letters."""
    env = {
        "HEADGATE_HOME": str(folder / "home"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": database_url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_SWEEP_S": "1",
        **{f"HEADGATE_{name.upper()}": value for name, value in settings.items()},
    }
    assert headgate(["db", "upgrade"], env).code == 0
    gateway, worker = Gateway(env, folder, *flags), worker_process(env, folder)
    with ended_afterwards(gateway, worker):
        worker.start()
        gateway.start()
        yield House(gateway, worker, simulator, env)
