"""One suite for both clients on both ways: a program need not know which way it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from headgate import (
    IdempotencyConflict,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    Request,
    ResultExpired,
    UnknownJob,
)
from headgate.shared.database.tables import jobs
from headgate.shared.job.result import ErrorReport, FailedAttempt
from tests.support.both_ways import WAYS, AnyClient, PlayedHouse, played_house
from tests.support.child import BUSY


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedHouse]:
    with played_house(tmp_path_factory.mktemp("house")) as found:
        yield found


@pytest.fixture(params=WAYS)
async def client(request: pytest.FixtureRequest, house: PlayedHouse) -> AsyncIterator[AnyClient]:
    async with house.asked(request.param) as found:
        yield found


async def test_a_job_goes_from_submit_to_its_result(client: AnyClient, house: PlayedHouse) -> None:
    job = await client.submit("Hello", metadata={"a": 1})
    assert await client.status(job.id) == await client.job(job, "status") == "queued"
    queued = await client.result(job.id)
    assert (queued.status, queued.metadata) == ("queued", {"a": 1})
    waiting = asyncio.create_task(client.job(job, "result", timeout_s=30 * BUSY))
    await asyncio.sleep(0)
    ended = await asyncio.to_thread(house.worker.end, job.id)
    assert await waiting == ended
    assert await client.result(job.id) == ended
    assert await client.result(job.id, wait=True) == ended
    assert await client.result(job.id, timeout=5) == ended
