"""Clients over HTTP: lost connections and gateways, four event loops, forks, keys, early ends."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from headgate import (
    AsyncClient,
    Client,
    JobTimeout,
    KeyRefused,
    Result,
    Unfit,
    Unreachable,
)
from tests.support.both_ways import PlayedHouse, deliver, played_house
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate, program
from tests.support.proxy import TcpProxy

PATIENT_S = 30 * BUSY


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedHouse]:
    """A house whose gateway wants keys."""
    with played_house(tmp_path_factory.mktemp("house"), gateway_open=0) as found:
        yield found


@pytest.fixture(scope="module")
def key(house: PlayedHouse) -> str:
    made = headgate(("keys", "create", "app", "--scope", "jobs", "--json"), house.env)
    return str(made.document["key"])


@pytest.fixture
def proxy(house: PlayedHouse, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(house.gateway.port)


@pytest.fixture
def client(proxy: TcpProxy, key: str) -> Iterator[Client]:
    with Client(base_url=f"http://127.0.0.1:{proxy.port}/v1/", api_key=key) as found:
        yield found


def jobs_on_record(house: PlayedHouse) -> int:
    with Client(house.settings) as direct:
        return len(direct.jobs(limit=10_000))


@pytest.mark.parametrize("many", [False, True])
def test_a_submit_whose_answer_is_lost_is_sent_again_and_counts_once(
    client: Client, proxy: TcpProxy, house: PlayedHouse, many: bool
) -> None:
    client.open()
    before = jobs_on_record(house)
    proxy.cut_after(20)
    ids = client.submit_many(["a", "b"]) if many else [client.submit("a").id]
    assert jobs_on_record(house) - before == len(ids)
    assert [client.status(one) for one in ids] == ["queued"] * len(ids)


def test_a_gateway_that_is_away_for_a_moment_delays_calls_and_waits(
    client: Client, proxy: TcpProxy, house: PlayedHouse
) -> None:
    job = client.submit("Hello")
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(job.result, PATIENT_S)
        wait_until(lambda: proxy.connections > 0, 5, "the poll")
        proxy.refuse()
        result = house.worker.end(job.id)
        proxy.accept()
        assert waiting.result(PATIENT_S) == result


def test_a_gateway_that_stays_away_is_unreachable(
    client: Client, proxy: TcpProxy, key: str
) -> None:
    client.open()
    proxy.refuse()
    for call in (client.open, lambda: client.submit("x"), lambda: client.result("id", timeout_s=0)):
        with pytest.raises(Unreachable, match="the gateway at http://127") as caught:
            call()
        assert caught.value.server == f"the gateway at http://127.0.0.1:{proxy.port}"
        assert key not in repr(caught.value) + str(caught.value.__cause__)


def test_a_stream_goes_on_after_lost_connections_with_no_piece_twice(
    client: Client, proxy: TcpProxy, house: PlayedHouse
) -> None:
    job = client.submit("Hello", stream=True)
    words = [f"{n} " for n in range(30)]
    deliver(house.worker, job.id, *words[:5])
    read: list[str] = []
    for piece in client.stream(job.id, timeout_s=PATIENT_S):
        read.append(piece)
        n = len(read)
        if n % 5 == 0 and n < 30:
            proxy.cut()
            deliver(house.worker, job.id, *words[n : n + 5], first=n + 1)
        elif n == 30:
            house.worker.end(job.id, content="".join(words) + "end")
    assert read == [*words, "end"]


def test_one_async_client_serves_four_event_loops_at_once(house: PlayedHouse, key: str) -> None:
    client = AsyncClient(base_url=house.gateway.url, api_key=key)
    meet = threading.Barrier(4)

    async def work() -> list[Result]:
        ids = await client.submit_many(["a", "b"])
        await asyncio.to_thread(meet.wait, PATIENT_S)
        waiting = [asyncio.create_task(client.result(one, wait=True)) for one in ids]
        await asyncio.sleep(0.05)
        for one in ids:
            await asyncio.to_thread(house.worker.end, one)
        return await asyncio.gather(*waiting)

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(asyncio.run, work()) for _ in range(4)]
        results = [result for future in done for result in future.result(PATIENT_S)]
    assert [result.status for result in results] == ["succeeded"] * 8
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="make a new one"):
        asyncio.run(client.submit("x"))


def test_a_forked_child_opens_its_own_connections(client: Client, house: PlayedHouse) -> None:
    before = client.submit("before", stream=True)
    deliver(house.worker, before.id, "one ")
    pieces = client.stream(before.id, timeout_s=PATIENT_S)
    assert next(pieces) == "one "
    child = os.fork()
    if child == 0:
        try:
            with pytest.raises(RuntimeError, match="before the fork"):
                next(pieces)
            inside = client.submit("in the child")
            with pytest.raises(JobTimeout):
                inside.result(timeout_s=0.1)
            client.close()
            os._exit(0)
        except BaseException:
            os._exit(2)
    ended = psutil.Process(child)
    try:
        wait_until(lambda: ended.status() == psutil.STATUS_ZOMBIE, 20, "the child to end")
    finally:
        ended.kill()
        _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 0
    house.worker.end(before.id, content="one two")
    assert "".join(pieces) == "two"


def test_clients_and_their_jobs_are_not_pickled(client: Client, key: str) -> None:
    job = client.submit("x")
    other = AsyncClient(base_url="http://127.0.0.1:1", api_key=key)
    for thing in (client, job, other):
        with pytest.raises(TypeError, match="cannot be pickled or copied") as caught:
            pickle.dumps(thing)
        assert key not in str(caught.value)
        assert key not in repr(thing)


def test_a_client_closed_in_mid_stream_says_so(client: Client, house: PlayedHouse) -> None:
    job = client.submit("Hello", stream=True)
    deliver(house.worker, job.id, "one ")
    pieces = client.stream(job.id)
    assert next(pieces) == "one "
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(next, pieces)
        waiting = pool.submit(job.result)
        wait_until(lambda: reading.running() and waiting.running(), 5, "both")
        client.close()
        for future in (reading, waiting):
            with pytest.raises(RuntimeError, match="closed"):
                future.result(PATIENT_S)
    with pytest.raises(RuntimeError, match="make a new one"):
        client.submit("Hello")
    assert not any(t.name == "headgate-client" for t in threading.enumerate())


LEFT_OPEN = """
import asyncio, gc, logging, sys
from headgate import AsyncClient, Client
logging.basicConfig(level=logging.DEBUG)
url, key = sys.argv[1:]
client = Client(base_url=url, api_key=key)
job = client.submit("left open", stream=True)
pieces = client.stream(job.id, pulse_s=0.1)
next(pieces)
def lost():
    Client(base_url=url, api_key=key).open()
lost()
gc.collect()
async def main():
    other = AsyncClient(base_url=url, api_key=key)
    job = await other.submit("left open, too")
    asyncio.create_task(other.result(job.id, wait=True))
    await anext(other.stream(job.id, pulse_s=0.1))
asyncio.run(main())
print("done")
"""


def test_clients_left_open_at_exit_end_without_a_word(
    house: PlayedHouse, key: str, tmp_path: Path
) -> None:
    (file := tmp_path / "left_open.py").write_text(LEFT_OPEN)
    argv = [sys.executable, "-X", "dev", str(file), house.gateway.url, key]
    ended = program(argv, house.env, fresh=True)
    assert (ended.code, ended.out.strip()) == (0, "done"), ended.err
    noise = ("Error", "Warning", "never", "Unclosed", "Traceback", key)
    assert [word for word in noise if word in ended.err] == [], ended.err


def test_a_wrong_key_is_refused_and_never_shown(
    house: PlayedHouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "hg-" + "s3cret" * 8
    with Client(base_url=house.gateway.url, api_key=wrong) as client:
        for call in (lambda: client.submit("x"), lambda: client.result("id", wait=True)):
            with pytest.raises(KeyRefused) as caught:
                call()
            assert caught.value.http_status == 401
            assert "s3cret" not in str(caught.value) + repr(vars(caught.value))
        assert "s3cret" not in repr(client) + repr(vars(client))
    assert "s3cret" not in caplog.text


class Odd(BaseHTTPRequestHandler):
    """A server that is no gateway."""

    def do_GET(self) -> None:
        """Answer as the path says."""
        if self.path.startswith("/page"):
            self.send_response(200)
        elif self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("location", "https://elsewhere.example.com/login")
        else:
            self.send_response(404)
        self.send_header("content-length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def do_POST(self) -> None:
        """Take the call and give no answer."""
        self.rfile.read(int(self.headers["content-length"]))
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_server_that_is_no_gateway_is_named(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        for path, words in (
            ("", "base_url"),
            ("/page", "no JSON; check base_url"),
            ("/moved", "redirects to https://elsewhere"),
        ):
            with Client(base_url=url + path) as client, pytest.raises(Unfit, match=words):
                client.status("x")
        submits: list[Callable[[Client], object]] = [
            lambda one: one.submit("x"), lambda one: one.submit_many(["x", "y"]),
        ]  # fmt: skip
        for submit in submits:
            with Client(base_url=url) as client, pytest.raises(Unreachable) as caught:
                submit(client)
            assert "perhaps it is on record: look" in caught.value.remedy
        server.shutdown()


def test_https_is_spoken_and_its_certificate_is_checked(
    house: PlayedHouse, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    proxy = TcpProxy(house.gateway.port, tls=context).start()
    try:
        url = f"https://127.0.0.1:{proxy.port}"
        with Client(base_url=url, api_key=key) as client, pytest.raises(Unfit, match="trusted"):
            client.submit("x")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with Client(base_url=url, api_key=key) as client:
            assert client.submit("x").status() == "queued"
    finally:
        proxy.stop()


def test_the_environment_chooses_the_way(
    house: PlayedHouse, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE_BASE_URL", house.gateway.url)
    monkeypatch.setenv("HEADGATE_API_KEY", key)
    with Client() as client:
        assert client.submit("x").status() == "queued"
        assert client.open() is None
    with Client(house.settings.redis_url) as direct:
        assert direct._transport.__class__.__name__ == "Direct"


async def test_hundreds_wait_over_few_connections(
    house: PlayedHouse, proxy: TcpProxy, key: str
) -> None:
    url = f"http://127.0.0.1:{proxy.port}"
    async with AsyncClient(base_url=url, api_key=key) as client:
        ids = await client.submit_many([f"{n}" for n in range(300)])
        waiting = [asyncio.create_task(client.result(one, wait=True)) for one in ids]
        await asyncio.sleep(0.3)
        assert proxy.connections < 10

        def end_all() -> None:
            for one in ids:
                house.worker.end(one)

        await asyncio.to_thread(end_all)
        results = await asyncio.gather(*waiting)
        assert [result.id for result in results] == ids
