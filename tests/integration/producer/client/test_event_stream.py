"""Reading the vendor's events of an answer: in order, whole, and void when begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from headgate import Client
from headgate.producer.client.delta_reader import MOST_BYTES, MOST_ENTRIES
from headgate.producer.client.event_stream import PULSE, EventStream, VendorEvents
from headgate.producer.client.operations import Operations
from headgate.producer.client.text_stream import TextStream
from headgate.producer.client.waiters import Waiters
from headgate.producer.errors import UnknownJob
from headgate.shared.broker import jobs, script
from headgate.shared.job.result import ErrorReport
from headgate.shared.settings import Settings
from tests.support.child import BUSY
from tests.support.played import PlayedWorker, settings_for
from tests.support.proxy import TcpProxy
from tests.support.servers import ValkeyServer

BOUND_S = 10 * BUSY


class Writing(PlayedWorker):
    """A played worker that writes the vendor's events."""

    def write(self, job_id: str, n: int, *events: bytes, fence: int = 1, text: str = "t") -> None:
        """Write the `n`-th piece of the job's stream."""
        command = jobs.deliver(
            self.at.keys, job_id, fence=fence, n=n, text=text, ttl_ms=60_000,
            events=b"\n".join(events), dialect="openai",
        )  # fmt: skip
        script.run(self.at.redis, command)

    def write_text(self, job_id: str, n: int, text: str) -> None:
        """Write a piece as workers of the release before do."""
        command = jobs.deliver(self.at.keys, job_id, fence=1, n=n, text=text, ttl_ms=60_000)
        script.run(self.at.redis, command)


@pytest.fixture
def proxy(valkey: ValkeyServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(valkey.port)


@pytest.fixture
def settings(proxy: TcpProxy, tmp_path: Path) -> Settings:
    url = f"redis://127.0.0.1:{proxy.port}/0"
    return settings_for(url, f"sqlite:///{tmp_path}/headgate.db", tmp_path, key_prefix="acme:")


@pytest.fixture
async def waiters(settings: Settings) -> AsyncIterator[Waiters]:
    operations = Operations(settings)
    made = operations.waiters(operations.open())
    yield made
    await made.close()
    operations.close()


@pytest.fixture
async def worker(valkey: ValkeyServer, settings: Settings) -> AsyncIterator[Writing]:
    with Client(settings.model_copy(update={"redis_url": valkey.url})) as own:
        yield Writing(own.open())


@pytest.fixture
def job_id(worker: Writing, settings: Settings) -> str:
    with Client(settings) as client:
        return client.submit("Hello", stream=True, events=True).id


async def following(stream: EventStream) -> VendorEvents | None:
    """Return the next events of the stream within a bound."""
    return await asyncio.wait_for(stream.next(), BOUND_S)


async def lines_of(stream: EventStream, most: int = 1_000_000) -> list[bytes]:
    """Return the lines until the end, or until there are so many."""
    lines: list[bytes] = []
    while len(lines) < most and (events := await following(stream)) is not None:
        lines += events.lines
    return lines


async def test_events_come_as_they_are_written_and_the_result_at_the_end(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    async with EventStream(waiters, job_id) as stream:
        worker.write(job_id, 1, b'{"a":1}', b'{"a":2}')
        assert await following(stream) == ("openai", [b'{"a":1}', b'{"a":2}'])
        worker.write(job_id, 2, b'{"a":3}')
        assert await following(stream) == ("openai", [b'{"a":3}'])
        assert stream.result is None
        worker.write(job_id, 3, b'{"a":4}')
        worker.end(job_id)
        assert await lines_of(stream) == [b'{"a":4}']
        assert stream.result is not None
        assert stream.result.content == f"answer to {job_id}"
        assert not stream.broken
        assert not stream.gap
        assert await stream.next() is None


async def test_a_reader_that_comes_after_the_end_gets_the_same_events(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    sent = [b'{"n":%d}' % n for n in range(10 * MOST_ENTRIES)]
    for n, event in enumerate(sent, 1):
        worker.write(job_id, n, event)
    worker.end(job_id)
    for _ in range(2):
        async with EventStream(waiters, job_id) as stream:
            assert await lines_of(stream) == sent
            assert stream.result is not None
            assert not stream.gap


async def test_a_slow_reader_keeps_little_and_misses_nothing(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    sent = [b'{"n":"%04d%s"}' % (n, b"x" * 2000) for n in range(400)]
    async with EventStream(waiters, job_id) as stream:
        for n, event in enumerate(sent, 1):
            worker.write(job_id, n, event)
        first = await following(stream)
        assert first is not None
        await asyncio.sleep(0.2)
        second = await following(stream)
        assert second is not None
        assert sum(map(len, second.lines)) < 3 * MOST_BYTES
        worker.end(job_id)
        assert [*first.lines, *second.lines, *await lines_of(stream)] == sent


async def test_another_claim_makes_void_what_was_handed_out(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    async with EventStream(waiters, job_id) as stream:
        worker.write(job_id, 1, b"1")
        assert await following(stream) == ("openai", [b"1"])
        worker.write(job_id, 1, b"2", fence=2)
        assert await following(stream) is None
        assert stream.broken
        assert stream.result is None
    async with EventStream(waiters, job_id) as stream:  # a new one begins with the latest claim
        worker.end(job_id)
        assert await lines_of(stream) == [b"2"]
        assert not stream.broken


async def test_another_claim_breaks_nothing_before_the_first_event(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    worker.write(job_id, 1, b"1")
    async with EventStream(waiters, job_id) as stream:
        await asyncio.sleep(0.2)  # it has read the first, and nobody took it
        worker.write(job_id, 1, b"2", fence=2)
        await asyncio.sleep(0.2)
        worker.end(job_id)
        assert await lines_of(stream) == [b"2"]
        assert not stream.broken
        assert stream.result is not None


async def test_a_reader_that_comes_late_begins_with_the_latest_claim(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    for fence in (1, 2):
        for n in range(1, 2 * MOST_ENTRIES):
            worker.write(job_id, n, b"%d" % fence, fence=fence)
    pieces = 2 * MOST_ENTRIES - 1
    async with TextStream(waiters, job_id, BOUND_S, None) as text:
        assert [await text.next() for _ in range(pieces)] == ["t"] * pieces
    async with EventStream(waiters, job_id) as stream:
        worker.end(job_id)
        assert set(await lines_of(stream)) == {b"2"}
        assert not stream.broken


async def test_nothing_is_handed_out_after_a_gap_but_the_result(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    async with EventStream(waiters, job_id, pulse_s=0.1) as stream:
        worker.write(job_id, 1, b"1")
        assert await following(stream) == ("openai", [b"1"])
        worker.write(job_id, 3, b"3")
        assert await following(stream) is PULSE
        worker.end(job_id)
        assert await lines_of(stream) == []
        assert stream.gap
        assert stream.result is not None


async def test_text_of_the_release_before_and_failures_and_cached_answers(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    async with EventStream(waiters, job_id) as stream:
        worker.write_text(job_id, 1, "zwölf\nelf")
        assert await following(stream) == ("text", ["zwölf\nelf".encode()])
        error = ErrorReport("overloaded", "the answer broke off", True)
        worker.end(job_id, status="failed", content=None, error=error)
        assert await following(stream) is None
        assert stream.result is not None
        assert stream.result.error == error


async def test_a_cached_answer_has_no_events(
    waiters: Waiters, worker: Writing, job_id: str
) -> None:
    worker.end(job_id, cached="exact")
    async with EventStream(waiters, job_id) as stream:
        assert await following(stream) is None
        assert stream.result is not None


async def test_a_lost_redis_delays_events_and_loses_none(
    waiters: Waiters, worker: Writing, job_id: str, proxy: TcpProxy
) -> None:
    async with EventStream(waiters, job_id) as stream:
        worker.write(job_id, 1, b"1")
        assert await following(stream) == ("openai", [b"1"])
        proxy.refuse()
        worker.write(job_id, 2, b"2")
        proxy.accept()
        assert await following(stream) == ("openai", [b"2"])
        worker.write(job_id, 3, b"3")
        proxy.refuse()
        worker.end(job_id)
        asyncio.get_running_loop().call_later(1, proxy.accept)
        assert await lines_of(stream) == [b"3"]
        assert not stream.gap


async def test_an_unknown_job_is_refused(waiters: Waiters, worker: Writing) -> None:
    async with EventStream(waiters, "nobody") as stream:
        with pytest.raises(UnknownJob):
            await following(stream)
