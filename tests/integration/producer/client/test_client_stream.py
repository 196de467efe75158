"""Reading an answer while it is made, when it has ended, and when something goes wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import (
    AsyncClient,
    Client,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    StreamBroken,
    UnknownJob,
)
from headgate.producer.dialects.pieces import replayed
from headgate.shared.broker import jobs, script
from headgate.shared.job.result import ErrorReport
from headgate.shared.settings import Settings
from tests.support.child import BUSY, wait_until
from tests.support.played import PlayedWorker, settings_for
from tests.support.proxy import TcpProxy
from tests.support.servers import ValkeyServer

MANY = 300


@pytest.fixture
def proxy(valkey: ValkeyServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(valkey.port)


@pytest.fixture
def settings(proxy: TcpProxy, tmp_path: Path) -> Settings:
    return settings_for(
        f"redis://127.0.0.1:{proxy.port}/0", f"sqlite:///{tmp_path}/headgate.db", tmp_path,
        key_prefix="acme:",
    )  # fmt: skip


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as opened:
        yield opened


@pytest.fixture
async def async_client(settings: Settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings) as opened:
        yield opened


class Streaming(PlayedWorker):
    """A played worker that streams."""

    def write(self, job_id: str, *pieces: str, fence: int = 1, first: int = 1) -> None:
        """Write pieces to the job's stream, as a worker does."""
        for n, text in enumerate(pieces, first):
            command = jobs.deliver(self.at.keys, job_id, fence=fence, n=n, text=text, ttl_ms=60_000)
            script.run(self.at.redis, command)


@pytest.fixture
def worker(valkey: ValkeyServer, settings: Settings) -> Iterator[Streaming]:
    """Return a played worker with its own connections: only the producer uses the proxy."""
    with Client(settings.model_copy(update={"redis_url": valkey.url})) as own:
        yield Streaming(own.open())


class Reader(threading.Thread):
    """Reads a stream in its own thread."""

    def __init__(self, pieces: Iterator[str]) -> None:
        super().__init__(daemon=True)
        self.read: list[str] = []
        self.error: Exception | None = None
        self._pieces = pieces
        self.start()

    def run(self) -> None:
        """Read all pieces; keep the error if one is raised."""
        try:
            for piece in self._pieces:
                self.read.append(piece)
        except Exception as error:
            self.error = error

    def has(self, *pieces: str) -> None:
        """Wait up to 5 s until exactly these pieces have been read."""
        wait_until(lambda: self.read == [*pieces], 5, f"{pieces}, not {self.read}")

    def end(self) -> list[str]:
        """Return all pieces; raise the error that ended the stream."""
        self.join(10 * BUSY)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.read


def test_pieces_come_while_the_answer_is_made_and_the_result_brings_the_rest(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id, timeout_s=20))
    worker.write(job.id, "one ", "two ")
    reader.has("one ", "two ")
    worker.write(job.id, "three ", first=3)
    reader.has("one ", "two ", "three ")
    worker.end(job.id, content="one two three four.")
    assert reader.end() == ["one ", "two ", "three ", "four."]
    assert "".join(client.stream(job.id)) == "one two three four."


def test_a_piece_is_read_within_moments_of_its_being_written(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id))
    worker.write(job.id, "warm")
    reader.has("warm")
    began = time.monotonic()
    for n in range(30):
        worker.write(job.id, f"{n}", first=n + 2)
        reader.has("warm", *map(str, range(n + 1)))
    assert time.monotonic() - began < 20, "a reader that looked once a second would take 30"
    worker.end(job.id, content="".join(["warm", *map(str, range(30))]))
    reader.end()


def test_an_answer_that_was_not_streamed_comes_in_pieces_when_it_is_there(
    client: Client, worker: Streaming
) -> None:
    content = "An answer of some words,\nas from the cache.  "
    job = client.submit("Hello")
    worker.end(job.id, content=content, cached="exact")
    pieces = list(client.stream(job.id))
    assert "".join(pieces) == content
    assert len(pieces) > 2


@given(st.text(alphabet=" \nab€\u3000", max_size=400))
def test_what_is_replayed_is_the_whole_text(content: str) -> None:
    pieces = replayed(content)
    assert "".join(pieces) == content
    assert all(pieces)


def test_a_word_without_end_is_replayed_in_pieces_too() -> None:
    assert max(map(len, replayed("x" * 10_000))) <= 160


def test_an_answer_without_text_has_no_pieces(client: Client, worker: Streaming) -> None:
    job = client.submit("Hello", stream=True)
    worker.end(job.id, content=None, tool_calls=[{"id": "1"}])
    assert list(client.stream(job.id)) == []


@pytest.mark.parametrize("pieces", [(), ("a ",)], ids=["before a piece", "after a piece"])
def test_a_job_that_fails_raises_as_its_result_does(
    client: Client, worker: Streaming, pieces: tuple[str, ...]
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id))
    worker.write(job.id, *pieces)
    reader.has(*pieces)
    error = ErrorReport("connection", "the answer broke off", True)
    worker.end(job.id, status="failed", content=None, error=error)
    with pytest.raises(JobFailed, match="broke off") as caught:
        reader.end()
    assert caught.value.code == "connection"


def test_a_new_answer_by_another_worker_breaks_the_stream(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id))
    worker.write(job.id, "one ")
    reader.has("one ")
    worker.write(job.id, "eins ", fence=2)
    with pytest.raises(StreamBroken):
        reader.end()
    again = Reader(client.stream(job.id))
    again.has("eins ")
    worker.end(job.id, content="eins zwei")
    assert again.end() == ["eins ", "zwei"]


def test_an_answer_unlike_the_streamed_text_breaks_the_stream(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id))
    worker.write(job.id, "one ")
    reader.has("one ")
    worker.end(job.id, content="eins")
    with pytest.raises(StreamBroken):
        reader.end()


def test_a_reader_goes_on_where_it_left_off_also_after_the_end(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    worker.write(job.id, "one ", "two ", "three ")
    first = client.stream(job.id)
    had = [next(first), next(first)]
    assert next(client.stream(job.id, after=5)) == "wo "
    reader = Reader(client.stream(job.id, after=had[-1].after))
    reader.has("three ")
    worker.end(job.id, content="one two three four")
    assert reader.end() == ["three ", "four"]
    assert "".join(job.stream(after=had[0].after)) == "two three four"
    assert list(client.stream(job.id, after=len("one two three four"))) == []
    with pytest.raises(StreamBroken):  # it has more than there is
        list(client.stream(job.id, after=100))


def test_a_reader_of_an_answer_that_was_made_anew_does_not_get_its_rest(
    client: Client, worker: Streaming
) -> None:
    job = client.submit("Hello", stream=True)
    worker.write(job.id, "one ")
    had = next(client.stream(job.id))
    worker.write(job.id, "eins zwei ", fence=2)
    with pytest.raises(StreamBroken):
        next(client.stream(job.id, after=had.after))
    worker.end(job.id, content="eins zwei drei")
    with pytest.raises(StreamBroken):
        next(client.stream(job.id, after=had.after))
    assert "".join(client.stream(job.id)) == "eins zwei drei"


def test_wrong_uses_are_refused(client: Client, worker: Streaming) -> None:
    with pytest.raises(UnknownJob):
        next(client.stream("nobody"))
    with pytest.raises(InvalidRequest, match="after: -1"):
        next(client.stream("nobody", after=-1))
    with pytest.raises(InvalidRequest, match="stream"):
        client.submit(input="text", model="text-embedding-3-small", stream=True)
    job = client.submit(input="text", model="text-embedding-3-small")
    worker.end(job.id, content=None, embeddings=[[0.5]])
    with pytest.raises(InvalidRequest, match="embeddings have no text"):
        next(client.stream(job.id))


def test_a_reader_waits_for_its_timeout_and_yields_its_pulse(client: Client) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id, timeout_s=0.5, pulse_s=0.1))
    with pytest.raises(JobTimeout):
        reader.end()
    assert len(reader.read) <= 5
    assert set(reader.read) <= {""}
    began = time.monotonic()
    pulses = client.stream(job.id, pulse_s=0.1)
    assert [next(pulses) for _ in range(3)] == [""] * 3
    assert time.monotonic() - began >= 0.29


def test_a_lost_redis_delays_pieces_and_loses_none(
    client: Client, worker: Streaming, proxy: TcpProxy
) -> None:
    job = client.submit("Hello", stream=True)
    reader = Reader(client.stream(job.id))
    worker.write(job.id, "one ")
    reader.has("one ")
    proxy.refuse()
    worker.write(job.id, "two ", first=2)
    proxy.accept()
    reader.has("one ", "two ")
    proxy.refuse()
    worker.end(job.id, content="one two three")
    assert reader.end() == ["one ", "two ", "three"]


async def test_hundreds_read_along_over_two_connections(
    async_client: AsyncClient, worker: Streaming
) -> None:
    ids = await async_client.submit_many({"prompt": f"{n}", "stream": True} for n in range(MANY))

    async def read(job_id: str) -> list[str]:
        return [piece async for piece in async_client.stream(job_id, timeout_s=60 * BUSY)]

    reading = [asyncio.create_task(read(job_id)) for job_id in ids]
    at = worker.at

    def stream_all() -> None:
        channel = at.keys.deltas(ids[-1])
        wait_until(lambda: at.redis.pubsub_numsub(channel)[0][1] == 1, 10, "readers")
        of_pieces_and_results = lambda: len(at.redis.client_list(_type="pubsub")) == 2  # noqa: E731
        wait_until(of_pieces_and_results, 10, "two connections")
        for job_id in ids:
            worker.write(job_id, "a ", "b ")
        for job_id in ids:
            worker.end(job_id, content="a b c")

    await asyncio.to_thread(stream_all)
    read_all = await asyncio.gather(*reading)
    assert {"".join(pieces) for pieces in read_all} == {"a b c"}
    # Nothing is left behind that would go on looking.
    await asyncio.to_thread(
        wait_until, lambda: not at.redis.client_list(_type="pubsub"), 10, "their end"
    )


async def test_a_reader_that_goes_away_leaves_nothing_behind(
    async_client: AsyncClient, worker: Streaming
) -> None:
    job = await async_client.submit("Hello", stream=True)
    worker.write(job.id, "one ")
    pieces = async_client.stream(job.id)
    assert await anext(pieces) == "one "
    await pieces.aclose()
    again = async_client.stream(job.id)
    worker.write(job.id, "two ", first=2)
    assert [await anext(again), await anext(again)] == ["one ", "two "]
