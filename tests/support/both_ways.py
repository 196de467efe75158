"""Both clients on both of their ways, asked by the same words."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headgate import AsyncClient, Client
from headgate.shared.broker import jobs, script
from headgate.shared.settings import Settings
from tests.support.gateway import Gateway
from tests.support.installation import ended_afterwards
from tests.support.played import PlayedWorker, settings_for
from tests.support.servers import ValkeyServer, short_folder

WAYS = ("redis, blocking", "redis, async", "http, blocking", "http, async")


@dataclass(frozen=True, slots=True)
class PlayedHouse:
    """Servers, a gateway that is open to this machine, and a worker that the test plays."""

    settings: Settings
    env: dict[str, str]
    gateway: Gateway
    worker: PlayedWorker

    def client(self, way: str) -> Client | AsyncClient:
        """Return a new client on this way, one of WAYS."""
        kind = AsyncClient if way.endswith("async") else Client
        if way.startswith("redis"):
            return kind(self.settings)
        return kind(base_url=self.gateway.url)

    @asynccontextmanager
    async def asked(self, way: str) -> AsyncIterator[AnyClient]:
        """Give a client on this way, and close it at the end."""
        client = AnyClient(self.client(way))
        try:
            yield client
        finally:
            await client.close()


@contextmanager
def played_house(folder: Path, **settings: Any) -> Iterator[PlayedHouse]:
    """Run a gateway on a Valkey and a SQLite file of its own."""
    url = f"sqlite:///{folder / 'headgate.db'}"
    with short_folder() as short, ValkeyServer(short) as server:
        chosen = settings_for(server.url, url, folder, **settings)
        env = {
            "HEADGATE_HOME": str(folder),
            "HEADGATE_REDIS_URL": server.url,
            "HEADGATE_DATABASE_URL": url,
            **{f"HEADGATE_{name.upper()}": str(value) for name, value in settings.items()},
        }
        gateway = Gateway(env, folder)
        with ended_afterwards(gateway), Client(chosen) as own:
            gateway.start()
            yield PlayedHouse(chosen, env, gateway, PlayedWorker(own.open()))


def deliver(
    worker: PlayedWorker, job_id: str, *pieces: str, fence: int = 1, first: int = 1
) -> None:
    """Write pieces of an answer as a worker does."""
    for n, text in enumerate(pieces, first):
        keys = worker.at.keys
        command = jobs.deliver(keys, job_id, fence=fence, n=n, text=text, ttl_ms=60_000)
        script.run(worker.at.redis, command)


class AnyClient:
    """A Client or an AsyncClient; each method is a coroutine with the client's own arguments."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Any:
        """Return the method of this name, as a coroutine that blocks nobody."""
        method = getattr(self.client, name)
        return method if inspect.iscoroutinefunction(method) else _in_thread(method)

    async def job(self, job: Any, name: str, *args: Any, **named: Any) -> Any:
        """Call a method of a Job or an AsyncJob."""
        method = getattr(job, name)
        called = method if inspect.iscoroutinefunction(method) else _in_thread(method)
        return await called(*args, **named)

    def stream(self, job_id: str, **asked: Any) -> AsyncIterator[Any]:
        """Yield the pieces of an answer."""
        return _iterated(self.client.stream(job_id, **asked))

    def as_completed(self, ids: list[str], **asked: Any) -> AsyncIterator[Any]:
        """Yield the results of jobs as they end."""
        return _iterated(self.client.as_completed(ids, **asked))


async def _iterated(found: Any) -> AsyncIterator[Any]:
    if hasattr(found, "__anext__"):
        async for one in found:
            yield one
        return
    end = object()
    try:
        while (one := await asyncio.to_thread(next, found, end)) is not end:
            yield one
    finally:
        await asyncio.to_thread(found.close)


def _in_thread(method: Any) -> Any:
    async def call(*args: Any, **named: Any) -> Any:
        return await asyncio.to_thread(method, *args, **named)

    return call
