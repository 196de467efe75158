"""A provider that cannot be reached, hangs, lies or breaks off: jobs retry, fall back, or end with
the code that says what it was; and a network that goes away and comes back.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headgate import Client, RequestFields
from headgate.shared.settings import Settings
from tests.support import installation
from tests.support.child import BUSY
from tests.support.outages import finished, nothing_went_wrong, scene
from tests.support.proxy import TcpProxy
from tests.support.servers import Simulator, ValkeyServer, free_port

JOBS = 600
pytestmark = pytest.mark.slow

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(reply: bytes, *, hang: bool = False) -> Talk:
    """Reads a request, says `reply`, and hangs up, or says nothing more."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
            if hang:
                await asyncio.sleep(3600)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the caller has hung up, or the test is over
        finally:
            writer.close()

    return talk


async def no_tls(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    writer.close()


def answered(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole response."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n\r\n"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"

#: How the provider fails: what it says, the code that the job gets, and whether the ledger knows
#: that nothing was billed.
FAULTS: dict[str, tuple[Talk | str, str, bool]] = {
    "no-such-name": ("http://headgate-no-such-host.invalid", "connection", True),
    "refused": ("http://127.0.0.1:{free}", "connection", True),
    "no-tls": ("https://127.0.0.1:{port}", "connection", True),
    "silent": (saying(b"", hang=True), "timeout", False),
    "hangs-after-headers": (saying(HEAD, hang=True), "timeout", False),
    "closes-at-once": (saying(b""), "connection", False),
    "closes-in-mid-body": (saying(HEAD + b'{"choices": ['), "connection", False),
    "garbage": (saying(b"\x16\x03\x01 garbage \xff\xfe\r\n\r\n"), "invalid_output", False),
    "no-json": (saying(answered(b"hello")), "invalid_output", False),
    "html-502": (saying(answered(HTML, "502 Bad Gateway", "text/html")), "provider_error", False),
}


@contextmanager
def vendors() -> Iterator[dict[str, str]]:
    """The address of each faulty provider; they answer in a thread of their own."""
    talks = {name: fault for name, (fault, _, _) in FAULTS.items() if not isinstance(fault, str)}
    ports: dict[str, int] = {}
    ready, loop = threading.Event(), asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        for name, talk in {**talks, "plain": no_tls}.items():
            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            ports[name] = server.sockets[0].getsockname()[1]
            servers.append(server)
        ready.set()
        await over.wait()
        for server in servers:
            server.close()

    servers: list[asyncio.Server] = []
    # `run` cancels what still hangs and closes the loop.
    runner = asyncio.Runner(loop_factory=lambda: loop)
    thread = threading.Thread(target=lambda: _run(runner, serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield {
            name: fault.format(free=free_port(), port=ports["plain"])
            if isinstance(fault, str)
            else f"http://127.0.0.1:{ports[name]}"
            for name, (fault, _, _) in FAULTS.items()
        }
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(10)


def _run(runner: asyncio.Runner, work: Coroutine[None, None, None]) -> None:
    with runner:
        runner.run(work)


MODEL = """
[providers."{name}"]
dialect = "openai"
base_url = "{url}/v1"
api_key_env = "NO_KEY"
api_key_optional = true

[models."{name}"]
provider = "{name}"
class = "fast"
context_tokens = 128000
max_output_tokens = 16384
timeout_s = {limit}
max_attempts = 2
backoff_s = 0.1
fallback = {fallback}
source = "made up"
checked = 2026-11-21
"""


def catalog_of(addresses: dict[str, str], good: str) -> str:
    """A catalog in which each faulty provider has a model, and one good model stands by."""

    def limit(name: str) -> int:
        """Only where nobody answers it has to be waited for."""
        return 4 if FAULTS[name][1] == "timeout" else 60

    faulty = [
        MODEL.format(name=name, url=url, fallback='["good"]', limit=limit(name))
        for name, url in addresses.items()
    ]
    return "".join([*faulty, MODEL.format(name="good", url=good, fallback="[]", limit=60)])


def test_each_fault_of_a_provider_is_retried_then_left_or_told_with_its_code(
    valkey: ValkeyServer, simulator: Simulator, sqlite_url: str, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.toml"
    with vendors() as addresses:
        catalog.write_text(catalog_of(addresses, simulator.url))
        with scene(
            tmp_path, simulator, valkey.url, sqlite_url, count=0, catalog=catalog, simulator_url=""
        ) as here:
            settings = Settings(**here.settings, catalog=catalog)
            with Client(settings) as client:
                ask: RequestFields = {"prompt": "Hello", "cache": {"mode": "off"}}
                fields: list[RequestFields] = [{**ask, "model": name} for name in FAULTS]
                saved = client.submit_many(fields)
                lost = client.submit_many([{**one, "fallback": False} for one in fields])
                for name, job_id in zip(FAULTS, saved, strict=True):
                    result = client.result(job_id, timeout_s=60 * BUSY)
                    assert result.status == "succeeded", (name, result.error)
                    assert (result.model_used, result.fallback) == ("good", True), name
                    assert result.attempts == 3, name
                for name, job_id in zip(FAULTS, lost, strict=True):
                    result = client.result(job_id, timeout_s=60 * BUSY)
                    assert result.error is not None, name
                    code = FAULTS[name][1]
                    assert (name, result.error.code) == (name, code), result.error
                    told = [attempt.code for attempt in result.error.attempts]
                    assert (name, told) == (name, [code, code])
            nothing_went_wrong(here.workers)
            books = installation.read_books(here.url)
            sure = sum(1 for _, _, is_sure in FAULTS.values() if is_sure)
            assert books.attempts == {
                "failed": 4 * sure,
                "unknown": 4 * (len(FAULTS) - sure),
                "answered": len(FAULTS),
            }


@pytest.mark.parametrize("away_s", [3.0, pytest.param(60.0, id="for 60 s", marks=pytest.mark.long)])
def test_a_network_to_the_provider_that_comes_back_finds_the_jobs_still_trying(
    away_s: float,
    valkey: ValkeyServer,
    simulator_factory: Callable[..., Simulator],
    tcp_proxy: Callable[[int], TcpProxy],
    sqlite_url: str,
    tmp_path: Path,
) -> None:
    # Slow, so that there are jobs left when the network goes.
    simulator = simulator_factory("--latency-ms", "300", "--latency-sigma", "0.2")
    line = tcp_proxy(int(simulator.url.rpartition(":")[2]))
    url = f"http://127.0.0.1:{line.port}"
    with scene(
        tmp_path, simulator, valkey.url, sqlite_url, count=JOBS, simulator_url=url,
        breaker_open_s=1, backoff_max_s=2,
    ) as here:  # fmt: skip
        batch = here.batch()
        with installation.ended_afterwards(batch):
            batch.start()
            here.until_ended(50)
            line.refuse()
            threading.Event().wait(away_s)
            line.accept()
            finished(here, batch)
        installation.each_is_answered_once(here.out, JOBS)
        books, bill = installation.read_books(here.url), simulator.stats()
        assert books.jobs == {"succeeded": JOBS}
        assert books.attempts["answered"] == JOBS
        cut = books.attempts.get("unknown", 0)
        assert cut <= 50, "only calls that were cut"
        assert bill["prompts"]["repeats"] <= cut
        assert books.attempts["failed"] > 0, "refused connections cost nothing, and are known to"
