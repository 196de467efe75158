"""A door whose servers are played: what calls meet there, one step at a time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from redis.exceptions import RedisError
from starlette.requests import Request

from headgate.producer.gateway.door import Door
from headgate.producer.submit.fields import RequestFields
from headgate.producer.submit.submit_each import Outcome
from headgate.shared.broker.keys import Keys
from headgate.shared.catalog import catalog
from headgate.shared.errors import HeadgateError
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings

WAIT_S = 30.0
"""Far more than a test takes."""


class PlayedRedis:
    """Texts by name. Nothing else is known to it."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    async def get(self, name: str) -> bytes | None:
        """Read a text."""
        return self.texts[name].encode() if name in self.texts else None

    def pipeline(self, **_: object) -> PlayedRedis:
        """Return itself: each command is done at once."""
        return self

    async def __aenter__(self) -> PlayedRedis:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def set(self, name: str, value: str, **_: object) -> None:
        """Write a text."""
        self.texts[name] = value

    def time(self) -> None:
        """Fail, as a Redis that does not answer."""
        raise RedisError

    async def execute(self) -> None:
        """Do nothing more."""

    async def aclose(self) -> None:
        """Do nothing."""


class PlayedWaiters:
    """Ends of jobs: a call waits until `ends` has the end of its job."""

    def __init__(self) -> None:
        self.ends: dict[str, Result | HeadgateError] = {}
        self.waiting: list[str] = []
        self.faults: list[Exception] = []
        self.changed = asyncio.Condition()

    async def end(self, job_id: str, end: Result | HeadgateError) -> None:
        """End a job."""
        async with self.changed:
            self.ends[job_id] = end
            self.changed.notify_all()

    async def until_waiting(self, count: int) -> None:
        """Return once so many calls wait."""
        async with asyncio.timeout(WAIT_S), self.changed:
            await self.changed.wait_for(lambda: len(self.waiting) == count)

    async def ended(self, job_id: str, _timeout_s: float = 0, *, is_new: bool = False) -> Result:
        """Wait for the end; the first waits end with the faults, if there are some."""
        if self.faults:
            raise self.faults.pop(0)
        async with self.changed:
            self.waiting.append(job_id)
            self.changed.notify_all()
            try:
                await self.changed.wait_for(lambda: job_id in self.ends)
            finally:
                self.waiting.remove(job_id)
        return _taken(self.ends[job_id])

    async def ended_already(self, job_id: str) -> Result | None:
        """Return the end of a job if there is one."""
        return _taken(self.ends[job_id]) if job_id in self.ends else None

    def waits_for(self, job_id: str) -> bool:
        """Whether a call waits for it."""
        return job_id in self.waiting

    async def close(self) -> None:
        """Do nothing."""


def _taken(end: Result | HeadgateError) -> Result:
    if isinstance(end, HeadgateError):
        raise end
    return end


class PlayedOperations:
    """Gives each request a job, once `may_submit` is set."""

    def __init__(self) -> None:
        self.may_submit, self.may_open = threading.Event(), threading.Event()
        self.submits = threading.Event()
        self.may_submit.set()
        self.may_open.set()
        self.submitted: list[RequestFields] = []
        self.cancelled: list[str] = []
        self.shed_together: list[list[str]] = []
        self.opened = 0
        self.redis, self.waiters_made = PlayedRedis(), PlayedWaiters()
        self.outcomes: list[Outcome] = []
        self.open_fault: HeadgateError | None = None

    def open(self) -> Any:
        """Return what stands for an installation."""
        self.opened += 1
        assert self.may_open.wait(WAIT_S)
        if self.open_fault is not None:
            raise self.open_fault
        servers = SimpleNamespace(async_redis_client=lambda: self.redis)
        return SimpleNamespace(servers=servers, keys=Keys("t"), catalog=catalog.load(None))

    def waiters(self, _at: object) -> PlayedWaiters:
        """Return the one that there is."""
        return self.waiters_made

    def submit_each(self, requests: Sequence[RequestFields]) -> list[Outcome]:
        """Return a job for each, or what the test wants."""
        self.submits.set()
        assert self.may_submit.wait(WAIT_S)
        self.submitted += requests
        first = len(self.submitted) - len(requests) + 1
        return [self.outcomes.pop(0) if self.outcomes else f"0193-{first + n}"
                for n in range(len(requests))]  # fmt: skip

    def cancel(self, ids: Sequence[str]) -> None:
        """Note what is cancelled."""
        self.cancelled += ids

    def shed(self, ids: Sequence[str]) -> None:
        """Note what is shed together; `b` fails."""
        self.shed_together.append(list(ids))
        if "b" in ids:
            raise ValueError

    def close(self) -> None:
        """Do nothing."""


class Caller:
    """One call at a door, and the connection of its caller."""

    def __init__(self, door: Door, **headers: str) -> None:
        self._body = json.dumps({"model": "gpt-4o-mini",
                                 "messages": [{"role": "user", "content": "hi"}]})  # fmt: skip
        self._left, self._read = asyncio.Event(), False
        named = [(name.replace("_", "-").encode(), value.encode())
                 for name, value in headers.items()]  # fmt: skip
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": named,
                 "query_string": b"", "scheme": "http", "server": ("127.0.0.1", 80)}  # fmt: skip
        self.answer = asyncio.ensure_future(door.answer(Request(scope, self._receive), "chat"))

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._read:
            self._read = True
            return {"type": "http.request", "body": self._body.encode(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}


def make_door(operations: PlayedOperations) -> Door:
    """Return a door that is open to all."""
    return Door(Settings(gateway_open=True), operations)  # type: ignore[arg-type]  # played


def good(job_id: str) -> Result:
    """The end of a job that succeeded."""
    return Result(job_id, "succeeded", "gpt-4o-mini", content="hello", model_used="gpt-4o-mini")


async def turns() -> None:
    """Let all that needs no server and no clock come to its end."""
    for _ in range(200):
        await asyncio.sleep(0)


async def departed(door: Door) -> None:
    """Wait until the jobs of all callers that went away were cancelled, or not."""
    await asyncio.gather(*door.departures._tasks)
