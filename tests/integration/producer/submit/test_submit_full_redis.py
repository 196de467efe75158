"""A full Redis refuses new jobs: the caller hears why, and none of them is on record as queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import event, func, select

from headgate import Client, SubmitInterrupted, Unreachable
from headgate.producer.submit.enqueue import ROWS_PER_COMMIT, enqueue
from headgate.producer.submit.submit import submitter_for
from headgate.shared.database.tables import idempotency, job_metadata
from tests.support.played import ids_of, settings_for
from tests.support.servers import ValkeyServer


@pytest.fixture
def server(valkey_factory: Callable[..., ValkeyServer]) -> ValkeyServer:
    return valkey_factory()


@pytest.fixture
def direct(server: ValkeyServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def client(server: ValkeyServer, database_url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(settings_for(server.url, database_url, tmp_path)) as opened:
        yield opened


def before_commit(client: Client, count: int, act: Callable[[], object]) -> None:
    """Call `act` once, right before commit number `count`."""
    commits = 0

    def seen(_: object) -> None:
        nonlocal commits
        commits += 1
        if commits == count:
            act()

    event.listen(client.open().engine, "commit", seen)


def count_keys(client: Client) -> int:
    with client.open().engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(idempotency)) or 0)


def count_metadata(client: Client) -> int:
    with client.open().engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(job_metadata)) or 0)


def test_a_full_redis_is_told_before_anything_is_on_record(
    client: Client, direct: redis.Redis
) -> None:
    client.open()
    direct.config_set("maxmemory", "1mb")
    with pytest.raises(Unreachable) as caught:
        client.submit("Hello")
    assert not isinstance(caught.value, SubmitInterrupted)
    assert "it is full (" in str(caught.value)
    assert "`headgate health`" in str(caught.value)
    assert ids_of(client.open()) == []
    direct.config_set("maxmemory", "0")
    client.submit("Hello")
    assert len(ids_of(client.open())) == direct.llen("headgate.standard.fast") == 1


def test_jobs_that_a_full_redis_refuses_are_not_on_record_as_queued(
    client: Client, direct: redis.Redis
) -> None:
    client.open()
    before_commit(client, 1, lambda: direct.config_set("maxmemory", "1mb"))
    with pytest.raises(Unreachable) as caught:
        client.submit("Hello", idempotency_key="k", metadata={"run": 7})
    assert not isinstance(caught.value, SubmitInterrupted)
    assert ids_of(client.open()) == []
    assert count_keys(client) == count_metadata(client) == 0
    direct.config_set("maxmemory", "0")
    job = client.submit("Hello", idempotency_key="k")
    assert ids_of(client.open()) == [job.id]
    assert direct.llen("headgate.standard.fast") == 1


def test_of_many_jobs_those_before_the_refusal_stay_and_are_named(
    client: Client, direct: redis.Redis
) -> None:
    at = client.open()
    before_commit(client, 2, lambda: direct.config_set("maxmemory", "1mb"))
    with pytest.raises(SubmitInterrupted) as caught:
        client.submit_many([f"p{i}" for i in range(3 * ROWS_PER_COMMIT)])
    assert sorted(caught.value.job_ids) == sorted(ids_of(at))
    assert len(caught.value.job_ids) == ROWS_PER_COMMIT
    assert caught.value.unsure_ids == ()
    assert "it is full (" in str(caught.value)
    assert direct.llen("headgate.standard.fast") == ROWS_PER_COMMIT


class FillsUp(redis.Redis):
    """A client whose server is full after its first script."""

    scripts = 0

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send the command; before the second script, let the server be full."""
        execute: Callable[..., Any] = super().execute_command
        self.scripts += words[0] == "EVALSHA"
        if self.scripts == 2:
            execute("CONFIG", "SET", "maxmemory", "1mb")
        return execute(*words, **options)


def test_of_one_transaction_the_jobs_of_queues_that_were_reached_stay(
    client: Client, server: ValkeyServer, direct: redis.Redis
) -> None:
    at = client.open()
    client.submit("the script is known")
    submitter = submitter_for(at)
    requests = [{"prompt": f"p{n}", "priority": ("standard", "bulk")[n % 2]} for n in range(6)]
    prepared = [submitter.prepare(one) for one in requests]
    with (
        FillsUp.from_url(server.url) as filling,
        pytest.raises(SubmitInterrupted) as caught,
    ):
        enqueue(at.engine, filling, at.keys, prepared)
    assert sorted(caught.value.job_ids) == sorted(ids_of(at))[1:]
    assert len(caught.value.job_ids) == 3
    direct.config_set("maxmemory", "0")
    assert direct.llen("headgate.standard.fast") == 4
    assert not direct.exists("headgate.bulk.fast")
