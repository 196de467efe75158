"""Redis or the database goes away before or during a submit: which error the caller gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from headgate import Client, SubmitInterrupted, Unreachable
from headgate.producer.results.read import known
from headgate.producer.submit.enqueue import ROWS_PER_COMMIT
from headgate.shared.broker import queues
from headgate.shared.job.envelope import Envelope
from headgate.shared.settings import Settings
from tests.support.played import PlayedWorker, ids_of, row_of, settings_for
from tests.support.proxy import TcpProxy
from tests.support.servers import PostgresServer, ValkeyServer

PASSWORD = "s3cret-word"  # noqa: S105
AT_MOST_S = 30.0


@pytest.fixture
def proxy(valkey: ValkeyServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
    return tcp_proxy(valkey.port)


@pytest.fixture
def client(
    valkey: ValkeyServer, proxy: TcpProxy, database_url: str, tmp_path: Path
) -> Iterator[Client]:
    with valkey.client() as direct:
        direct.acl_setuser(
            "tester", True, passwords=[f"+{PASSWORD}"], keys="*", categories=["+@all"]
        )
        direct.execute_command("ACL", "SETUSER", "tester", "allchannels")
        url = f"redis://tester:{PASSWORD}@127.0.0.1:{proxy.port}/0"
        with Client(settings_for(url, database_url, tmp_path)) as opened:
            yield opened
        direct.acl_deluser("tester")


def after_commits(client: Client, count: int, act: Callable[[], None]) -> None:
    """Call `act` right before commit number `count` is sent."""
    commits = 0

    def seen(_: object) -> None:
        nonlocal commits
        commits += 1
        if commits == count:
            act()

    event.listen(client.open().engine, "commit", seen)


def test_a_redis_that_was_never_there_costs_no_job(client: Client, proxy: TcpProxy) -> None:
    proxy.refuse()
    began = time.monotonic()
    with pytest.raises(Unreachable) as caught:
        client.submit("Hello")
    assert time.monotonic() - began < AT_MOST_S
    assert not isinstance(caught.value, SubmitInterrupted)
    assert "HEADGATE_REDIS_URL" in str(caught.value)
    assert "tester:***@" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    proxy.accept()
    assert ids_of(client.open()) == []


def test_a_redis_that_is_away_costs_an_open_client_no_job_either(
    client: Client, proxy: TcpProxy
) -> None:
    client.submit("Hello")
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(Unreachable) as caught:
            client.submit("Hello")
        assert not isinstance(caught.value, SubmitInterrupted)
        assert "HEADGATE_REDIS_URL" in str(caught.value)
    proxy.accept()
    client.submit("Hello")
    assert len(ids_of(client.open())) == 2


def test_a_redis_lost_after_the_row_leaves_a_job_that_is_recovered(
    client: Client, proxy: TcpProxy
) -> None:
    at = client.open()
    after_commits(client, 1, proxy.refuse)
    began = time.monotonic()
    with pytest.raises(SubmitInterrupted) as caught:
        client.submit("Hello")
    assert time.monotonic() - began < AT_MOST_S
    [job_id] = caught.value.job_ids
    assert f"job {job_id} is on record and will be run: do not submit again" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert row_of(at, job_id).status == "queued"
    proxy.accept()
    envelope: Envelope = PlayedWorker(at).envelope(job_id)
    assert queues.send(at.redis, at.keys, [(envelope, envelope.encode())]) == 1


def test_a_redis_lost_between_two_chunks_says_what_is_on_record(
    client: Client, proxy: TcpProxy
) -> None:
    at = client.open()
    after_commits(client, 2, proxy.refuse)
    with pytest.raises(SubmitInterrupted) as caught:
        client.submit_many([f"p{i}" for i in range(3 * ROWS_PER_COMMIT)])
    assert sorted(caught.value.job_ids) == sorted(ids_of(at))
    assert len(caught.value.job_ids) == 2 * ROWS_PER_COMMIT
    assert caught.value.unsure_ids == ()
    assert f"{2 * ROWS_PER_COMMIT} jobs" in str(caught.value)


class TestLostPostgres:
    """A network between the producer and PostgreSQL that can break."""

    @pytest.fixture
    def database(self, postgres: PostgresServer, tcp_proxy: Callable[[int], TcpProxy]) -> TcpProxy:
        return tcp_proxy(postgres.port)

    @pytest.fixture
    def client(
        self, valkey: ValkeyServer, database: TcpProxy, postgres_url: str, tmp_path: Path
    ) -> Iterator[Client]:
        name = postgres_url.rpartition("/")[2]
        url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{database.port}/{name}"
        with Client(settings_for(valkey.url, url, tmp_path)) as opened:
            yield opened

    def test_lost_between_two_jobs_it_costs_no_job(
        self, client: Client, database: TcpProxy
    ) -> None:
        client.submit("Hello")
        database.refuse()
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            client.submit("Hello")
        assert time.monotonic() - began < AT_MOST_S
        assert not isinstance(caught.value, SubmitInterrupted)
        assert "HEADGATE_DATABASE_URL" in str(caught.value)
        assert PASSWORD not in str(caught.value)
        database.accept()
        assert len(ids_of(client.open())) == 1

    def test_a_commit_without_an_answer_names_the_jobs_that_may_be_on_record(
        self, client: Client, database: TcpProxy
    ) -> None:
        at = client.open()
        after_commits(client, 2, database.refuse)
        with pytest.raises(SubmitInterrupted) as caught:
            client.submit_many([f"p{i}" for i in range(3 * ROWS_PER_COMMIT)])
        error = caught.value
        assert len(error.job_ids) == len(error.unsure_ids) == ROWS_PER_COMMIT
        assert "look before you submit again" in str(error)
        database.accept()
        assert known(at.engine, error.job_ids) == set(error.job_ids)
        assert known(at.engine, error.unsure_ids) == set()

    def test_a_lost_connection_is_replaced_without_a_word(
        self, client: Client, database: TcpProxy
    ) -> None:
        client.submit("Hello")
        database.cut()
        client.submit("Hello")
        assert len(ids_of(client.open())) == 2


def test_a_database_without_tables_says_what_to_run(
    valkey: ValkeyServer, postgres_url: str, tmp_path: Path
) -> None:
    settings = Settings(redis_url=valkey.url, database_url=postgres_url, home=tmp_path)
    with Client(settings) as client, pytest.raises(Unreachable, match="headgate db upgrade"):
        client.submit("Hello")


def test_a_database_that_is_not_there_is_named_without_its_password(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/headgate"
    settings = Settings(redis_url=valkey.url, database_url=url, home=tmp_path)
    with Client(settings) as client, pytest.raises(Unreachable) as caught:
        client.jobs()
    assert "me:***@127.0.0.1" in str(caught.value)
    assert PASSWORD not in str(caught.value)
