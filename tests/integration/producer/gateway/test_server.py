"""The gateway's processes: ports, signals, certificates, and how they end."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from tests.support.child import BUSY, ChildProcess, wait_until
from tests.support.command import PROGRAM, headgate
from tests.support.gateway import Answered, Gateway, House, Wire, ask, house, request_bytes
from tests.support.servers import Simulator, ValkeyServer, free_port

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


def chat(text: str = "hello", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages, **fields}


def slow(ms: int) -> dict[str, Any]:
    """A call whose answer takes this long, and is shared with no other."""
    return chat(f"[[fault:slow:ms={ms}]]", headgate={"cache": "off", "share": False})


@pytest.fixture
def env(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    found = {
        "HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
    }  # fmt: skip
    assert headgate(["db", "upgrade"], found).code == 0
    return found


Opened = Callable[..., House]


@pytest.fixture
def opened(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[Opened]:
    """A function that opens a house: flags of the gateway, and settings."""
    from contextlib import ExitStack

    simulator = simulator_factory("--latency-ms", "20")
    with ExitStack() as stack:

        def open_(*flags: str, **settings: str) -> House:
            return stack.enter_context(
                house(valkey, sqlite_url, simulator, tmp_path, *flags, **settings)
            )

        yield open_


class Asking(threading.Thread):
    """A call that is under way."""

    def __init__(self, gateway: Gateway, path: str, body: object) -> None:
        super().__init__()
        self.answered: Answered | None = None
        self.asked = gateway, path, body
        self.start()

    def run(self) -> None:
        self.answered = ask(*self.asked)

    def answer(self) -> Answered:
        self.join(60 * BUSY)
        assert self.answered is not None
        return self.answered


def serving(gateway: Gateway) -> list[psutil.Process]:
    """The processes that serve, of a gateway with several."""
    found: list[psutil.Process] = []
    for one in psutil.Process(gateway.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            said = " ".join(one.cmdline())
            found += [one] if "--shared" in said and "guard.py" not in said else []
    return found


def test_of_two_processes_one_that_is_killed_is_started_anew_and_calls_go_on(
    opened: Opened,
) -> None:
    at = opened("--workers", "2")
    wait_until(lambda: len(serving(at.gateway)) == 2, 30, "both to run")
    first, second = serving(at.gateway)

    wait_until(lambda: _listens(first) and _listens(second), 30, "both to listen")
    wires = [Wire(at.gateway) for _ in range(64)]
    for wire in wires:
        assert wire.send(request_bytes("/health/live", method="GET")).answer().status == 200
    assert _connections(first) > 0
    assert _connections(second) > 0
    for wire in wires:
        wire.close()
    first.kill()
    statuses: list[int] = []

    def is_back() -> bool:
        try:
            statuses.append(ask(at.gateway, CHAT, chat(f"number {len(statuses)}")).status)
        except ConnectionError:  # it had come to the one that was killed
            statuses.append(0)
        now = serving(at.gateway)
        return len(now) == 2 and first.pid not in {one.pid for one in now} and _all_listen(now)

    wait_until(is_back, 30, "another to take its place")
    assert set(statuses) <= {0, 200}
    assert ask(at.gateway, CHAT, chat("the last")).status == 200
    assert "starting it again" in at.gateway.log()
    assert at.gateway.stop() == 0


def _connections(process: psutil.Process) -> int:
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))


def _listens(process: psutil.Process) -> bool:
    return any(one.status == psutil.CONN_LISTEN for one in process.net_connections("tcp"))


def _all_listen(processes: list[psutil.Process]) -> bool:
    try:
        return all(map(_listens, processes))
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_that_is_taken_is_named(workers: str, env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = ["gateway", "--port", str(port), "--workers", workers]
        ended = headgate(words, env)
    assert ended.code == 2
    assert f"--port: {port}: cannot be used (Address already in use)" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104 (refused)
def test_without_keys_only_this_machine_is_served(
    host: str, workers: str, env: dict[str, str]
) -> None:
    words = ["gateway", "--host", host, "--port", str(free_port()), "--workers", workers]
    ended = headgate(words, {**env, "HEADGATE_GATEWAY_OPEN": "1"})
    assert ended.code == 2
    assert f"--host: '{host}':" in ended.err


def test_a_host_that_is_not_of_this_machine_is_named(env: dict[str, str]) -> None:
    for host in ("192.0.2.1", "no such host", "a" * 70):
        ended = headgate(["gateway", "--host", host, "--port", str(free_port())], env)
        assert ended.code == 2, ended
        assert "--host" in ended.err
        assert "Traceback" not in ended.err


def test_open_calls_end_after_sigterm_and_new_ones_are_refused(opened: Opened) -> None:
    at = opened()
    calls = [Asking(at.gateway, path, slow(10_000)) for path in (CHAT, MESSAGES)]
    idle = Wire(at.gateway)
    assert idle.send(request_bytes("/health/live", method="GET")).answer().status == 200
    wait_until(lambda: at.simulator.stats()["requests"] >= 2, 30, "the calls")
    at.gateway.signal(signal.SIGTERM)
    assert idle.is_closed()
    idle.close()
    wait_until(lambda: not _accepts(at.gateway), 10, "the port to be closed")
    assert at.gateway.running
    assert [call.answer().status for call in calls] == [200, 200]
    wait_until(lambda: not at.gateway.running, 20, "the gateway to end")
    assert at.gateway.exit_code() == 0
    assert "Traceback" not in at.gateway.log()


def _accepts(gateway: Gateway) -> bool:
    try:
        socket.create_connection(("127.0.0.1", gateway.port), 5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_with_130_and_a_second_one_at_once(workers: str, opened: Opened) -> None:
    at = opened("--workers", workers)
    at.gateway.signal(signal.SIGINT)
    wait_until(lambda: not at.gateway.running, 20, "the gateway to end")
    assert at.gateway.exit_code() == 130
    at.gateway.start()
    call = Asking(at.gateway, CHAT, slow(60_000))
    wait_until(lambda: at.simulator.stats()["requests"] >= 1, 30, "the call")
    at.gateway.signal(signal.SIGINT)
    wait_until(lambda: not _accepts(at.gateway), 10, "the port to be closed")
    assert at.gateway.running
    at.gateway.signal(signal.SIGINT)
    wait_until(lambda: not at.gateway.running, 10, "the gateway to end")
    assert at.gateway.exit_code() == 130
    assert call.answer().status == 503
    assert "Traceback" not in at.gateway.log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_calls_that_are_open_when_the_time_is_over_end_with_an_error_and_their_jobs_go_on(
    workers: str, opened: Opened
) -> None:
    at = opened("--workers", workers, drain_s="1")
    calls = [Asking(at.gateway, path, slow(12000)) for path in (CHAT, MESSAGES)]
    wait_until(lambda: at.simulator.stats()["requests"] >= 2, 30, "the calls")
    at.gateway.signal(signal.SIGTERM)
    ours, theirs = (call.answer() for call in calls)
    assert (ours.status, theirs.status) == (503, 503)
    assert ours.json["error"]["code"] == "unavailable"
    assert theirs.json["error"]["type"] == "api_error"
    assert ours.headers["retry-after"] == "1"
    wait_until(lambda: not at.gateway.running, 20, "the gateway to end")
    assert at.gateway.exit_code() == 0
    wait_until(lambda: at.statuses() == ["succeeded"] * 2, 30, "the jobs to end")


def test_a_gateway_is_ready_soon(env: dict[str, str], tmp_path: Path) -> None:
    """A new interpreter, as a user has it. The bound is that of a busy machine."""
    gateway = Gateway(env, tmp_path)
    gateway.forks = False
    began = time.monotonic()
    with gateway:
        taken_s = time.monotonic() - began
        cpu = psutil.Process(gateway.pid).cpu_times()
    print(f"ready after {taken_s:.2f} s, {cpu.user + cpu.system:.2f} s of CPU")  # noqa: T201
    assert taken_s < 1.5 * 4 * BUSY


class Certificate:
    """The files of a certificate for 127.0.0.1, which can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self.context = ssl.create_default_context()
        self.serial = 0
        self.renew()

    def renew(self) -> int:
        """Write another certificate; return its serial number."""
        authority = trustme.CA()
        authority.configure_trust(self.context)
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.key))
        with self.cert.open("wb") as file:
            for pem in issued.cert_chain_pems:
                file.write(pem.bytes())
        shown = ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())
        self.serial = hash(shown)
        return self.serial

    def shown_by(self, port: int) -> int:
        """The certificate that the gateway shows now, as `renew` returns it."""
        with (
            socket.create_connection(("127.0.0.1", port), 10 * BUSY) as plain,
            self.context.wrap_socket(plain, server_hostname="127.0.0.1") as shown,
        ):
            return hash(shown.getpeercert(binary_form=True))


class TlsGateway(Gateway):
    """A gateway with a certificate."""

    certificate: Certificate

    def ready(self) -> bool:
        try:
            return self.get("/health/live") == 200
        except OSError:
            return False

    def get(self, path: str) -> int:
        """The status of one GET."""
        trusted = self.certificate.context
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=10 * BUSY, context=trusted)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_certificate_is_taken_at_sighup_and_no_open_call_is_dropped(
    workers: str, opened: Opened, tmp_path: Path
) -> None:
    at = opened()
    certificate = Certificate(tmp_path)
    tls = {
        "HEADGATE_GATEWAY_TLS_CERT": str(certificate.cert),
        "HEADGATE_GATEWAY_TLS_KEY": str(certificate.key),
    }
    gateway = TlsGateway(at.env | tls, tmp_path, "--workers", workers, name="tls")
    gateway.certificate = certificate
    with gateway:
        assert "https://127.0.0.1" in gateway.log()
        assert certificate.shown_by(gateway.port) == certificate.serial
        body = json.dumps(slow(3000))
        trusted = certificate.context
        open_call = HTTPSConnection("127.0.0.1", gateway.port, timeout=60, context=trusted)
        open_call.request("POST", CHAT, body, {"content-type": "application/json"})
        wait_until(lambda: at.simulator.stats()["requests"] >= 1, 30, "the call")
        before = certificate.serial
        certificate.key.write_text("no key")
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: "was not read anew" in gateway.log(), 10, "the warning")
        assert certificate.shown_by(gateway.port) == before
        new = certificate.renew()
        gateway.signal(signal.SIGHUP)

        def is_new() -> bool:
            return {certificate.shown_by(gateway.port) for _ in range(8)} == {new}

        wait_until(is_new, 10, "the new one")
        assert open_call.getresponse().status == 200
        open_call.close()
        with pytest.raises(OSError):  # noqa: PT011 (any: it speaks TLS only)
            ask(gateway, "/health/live")
        assert gateway.get("/health/live") == 200
    assert gateway.exit_code() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_certificate_is_refused_by_the_name_of_its_setting(
    workers: str, env: dict[str, str], tmp_path: Path
) -> None:
    good = Certificate(tmp_path)
    none, text = tmp_path / "none.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    other = tmp_path / "other"
    other.mkdir()
    for cert, key, at_fault in (
        (none, good.key, "CERT"), (text, good.key, "CERT"), (good.cert, none, "KEY"),
        (good.cert, text, "KEY"), (good.cert, Certificate(other).key, "KEY"),
        (good.cert, None, "CERT"), (tmp_path, None, "CERT"),
    ):  # fmt: skip
        named = f"HEADGATE_GATEWAY_TLS_{at_fault}"
        tls = {"HEADGATE_GATEWAY_TLS_CERT": str(cert)}
        if key is not None:
            tls["HEADGATE_GATEWAY_TLS_KEY"] = str(key)
        ended = headgate(["gateway", "--port", str(free_port()), "--workers", workers], env | tls)
        assert ended.code == 2, ended
        assert named in ended.err, (cert, key, ended.err)
        assert "Traceback" not in ended.err


def test_it_listens_on_an_ipv6_address(env: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "six.log"
    argv = [*PROGRAM, "gateway", "--host", "::1", "--port", str(port)]
    gateway = ChildProcess(argv, env=env | {"HEADGATE_GATEWAY_OPEN": "1"}, log_path=log)
    gateway.forks = True
    with gateway:
        wait_until(lambda: _live("::1", port), 30, "it to answer")
        assert f"http://[::1]:{port}" in gateway.log()
    assert gateway.exit_code() == 0


def _live(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
