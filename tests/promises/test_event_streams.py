"""The vendor's events reach a reader in another process, whole, through kills of our own parts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate import Client
from headgate.producer.client.event_stream import EventStream
from headgate.producer.client.operations import Operations
from headgate.producer.client.waiters import Waiters
from headgate.shared.settings import Settings
from headgate.workers.provider import Unread
from headgate.workers.providers.chat_parts import ChatParts
from headgate.workers.providers.message_parts import MessageParts
from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.servers import Simulator, ValkeyServer

LATENCY_MS = 4000  # the first event after a quarter of it, the last at its end
BOUND_S = 60 * BUSY
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
    for name in ("weather", "time_of_day")
]  # fmt: skip


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    return valkey_factory(appendonly=True, extra=("--appendfsync", "always"))


@pytest.fixture
def simulator(simulator_factory: Callable[..., Simulator]) -> Simulator:
    return simulator_factory("--latency-ms", str(LATENCY_MS), "--latency-sigma", "0")


@pytest.fixture
def env(server: ValkeyServer, simulator: Simulator, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_REDIS_URL": server.url,
        "HEADGATE_SIMULATOR_URL": simulator.url,
        "HEADGATE_LEASE_S": "4",
    }


@pytest.fixture
def client(env: dict[str, str]) -> Client:
    settings = Settings(home=Path(env["HEADGATE_HOME"]), redis_url=env["HEADGATE_REDIS_URL"])
    return Client(settings)


@pytest.fixture
async def waiters(client: Client) -> AsyncIterator[Waiters]:
    operations = Operations(client.open().settings)
    made = operations.waiters(operations.open())
    yield made
    await made.close()
    operations.close()
    client.close()


async def lines_of(stream: EventStream, most: int = 1_000_000) -> list[tuple[str, bytes]]:
    """Return kind and line of each event until the end, or until there are so many."""
    lines: list[tuple[str, bytes]] = []
    async with asyncio.timeout(BOUND_S):
        while len(lines) < most and (events := await stream.next()) is not None:
            lines += [(events.kind, line) for line in events.lines]
    return lines


def together(dialect: str, lines: list[tuple[str, bytes]]) -> dict[str, Any]:
    """Return the message that these events make."""
    assert {kind for kind, _ in lines} == {dialect}
    take = Unread().text
    parts = ChatParts(take) if dialect == "openai" else MessageParts(take)
    for _, line in lines:
        parts.take(orjson.loads(line))
    return parts.whole()


@pytest.mark.parametrize("dialect", MODELS)
async def test_events_of_texts_tool_calls_and_reasoning_make_the_message(
    dialect: str, env: dict[str, str], client: Client, waiters: Waiters, tmp_path: Path
) -> None:
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        await asyncio.to_thread(worker.start)
        asked: list[dict[str, Any]] = [
            {"prompt": "Tell me of the sea"},
            {"prompt": "Look at weather [[parallel]] [[think]]", "params": {"tools": TOOLS}},
        ]
        for fields in asked:
            job = client.submit(model=MODELS[dialect], stream=True, events=True, **fields)
            async with EventStream(waiters, job.id) as stream, EventStream(waiters, job.id) as two:
                began = time.monotonic()
                first = await lines_of(stream, 1)
                assert stream.result is None
                lines = first + await lines_of(stream)
                assert time.monotonic() - began > LATENCY_MS / 1000 / 2
                result = stream.result
                assert result is not None
                assert not stream.gap
                assert await lines_of(two) == lines
            assert together(dialect, lines) == result.message
            assert len(result.tool_calls or ()) == (2 if "params" in fields else 0)
            async with EventStream(waiters, job.id) as late:
                assert await lines_of(late) == lines
            assert "".join(client.stream(job.id)) == (result.content or "")
            again = client.submit(model=MODELS[dialect], stream=True, events=True, **fields)
            async with EventStream(waiters, again.id) as cached:
                assert await lines_of(cached) == []
                assert cached.result is not None
                # "shared": the end was on record before Redis knew of it
                assert cached.result.cached in ("exact", "shared")
        assert await asyncio.to_thread(worker.stop, 20) == 0


async def test_a_killed_worker_breaks_the_streams_of_those_who_had_events(
    env: dict[str, str], client: Client, waiters: Waiters, tmp_path: Path
) -> None:
    first, second = (installation.worker_process(env, tmp_path, name) for name in ("one", "two"))
    with installation.ended_afterwards(first, second):
        await asyncio.to_thread(first.start)
        job = client.submit("Tell me of the sea", stream=True, events=True)
        async with EventStream(waiters, job.id) as had, EventStream(waiters, job.id) as had_none:
            assert await lines_of(had, 1)
            first.kill()
            await asyncio.to_thread(second.start)
            await lines_of(had)
            assert had.broken
            assert had.result is None
            lines = await lines_of(had_none)
            assert had_none.result is not None
            assert not had_none.broken
            assert together("openai", lines) == had_none.result.message
            assert had_none.result.attempts == 2
        assert await asyncio.to_thread(second.stop, 20) == 0


async def test_a_killed_valkey_delays_events_and_loses_none_that_it_had_written(
    env: dict[str, str], client: Client, waiters: Waiters, server: ValkeyServer, tmp_path: Path
) -> None:
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        await asyncio.to_thread(worker.start)
        job = client.submit("Tell me of the sea", stream=True, events=True)
        async with EventStream(waiters, job.id) as stream:
            lines = await lines_of(stream, 1)
            server.kill()
            await asyncio.to_thread(server.start)
            lines += await lines_of(stream)
            assert stream.result is not None
            assert (stream.broken, stream.gap) == (False, False)
            assert together("openai", lines) == stream.result.message
        assert await asyncio.to_thread(worker.stop, 20) == 0


@pytest.mark.parametrize("dialect", MODELS)
async def test_a_cancelled_stream_ends_at_the_provider_and_its_bill_is_what_was_made(
    dialect: str, env: dict[str, str], client: Client, waiters: Waiters, simulator: Simulator,
    tmp_path: Path,
) -> None:  # fmt: skip
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        await asyncio.to_thread(worker.start)
        job = client.submit("Tell me of the sea", model=MODELS[dialect], stream=True, events=True)
        async with EventStream(waiters, job.id) as stream:
            assert await lines_of(stream, 5)
            began = time.monotonic()
            await asyncio.to_thread(client.cancel, job.id)
            await asyncio.to_thread(
                wait_until, lambda: simulator.stats()["open_now"] == 0, 5, "the call to be closed"
            )
            took_s = time.monotonic() - began
            await lines_of(stream)
            assert stream.result is not None
            result = stream.result
            assert result.status == "cancelled"
        assert took_s < 2 * BUSY, "workers look every second"
        assert simulator.stats()["cancelled"] == 1
        assert result.usage.input_tokens > 0
        assert result.usage.output_tokens >= 5
        assert Decimal(result.cost_usd or 0) > 0
        books = installation.read_books(installation.database_url(env))
        assert books.attempts == {"unknown": 1}
        assert books.ledger_usd == books.audit_usd == Decimal(result.cost_usd or 0)
        assert await asyncio.to_thread(worker.stop, 20) == 0


async def test_a_cancelled_stream_leaves_a_job_that_waits_for_the_same_answer_unhurt(
    env: dict[str, str], client: Client, waiters: Waiters, simulator: Simulator, tmp_path: Path
) -> None:
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        await asyncio.to_thread(worker.start)
        leader = client.submit("Tell me of the sea", stream=True, events=True)
        async with EventStream(waiters, leader.id) as stream:
            assert await lines_of(stream, 1)
            follower = client.submit("Tell me of the sea", stream=True, events=True)
            async with EventStream(waiters, follower.id) as follows:
                await asyncio.to_thread(client.cancel, leader.id)
                await lines_of(stream)
                assert stream.result is not None
                assert stream.result.status == "cancelled"
                lines = await lines_of(follows)
                result = follows.result
                assert result is not None
                assert result.status == "succeeded"
                assert together("openai", lines) == result.message
        assert simulator.stats()["requests"] == 2
        assert await asyncio.to_thread(worker.stop, 20) == 0
