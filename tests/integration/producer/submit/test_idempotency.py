"""The same key and request is the same job for a day, whoever submits it and whatever gets lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select, update

from headgate import Client, IdempotencyConflict, RequestFields, SubmitInterrupted
from headgate.producer.submit.enqueue import ROWS_PER_COMMIT
from headgate.producer.submit.idempotency import IdempotencyKey, KeyOwner, look, take
from headgate.shared.database import migrate
from headgate.shared.database.engine import open_engine, reading, writing
from headgate.shared.database.tables import KEY_KEPT_MS, idempotency
from headgate.workers.maintenance.prune import forget_idempotency_keys
from tests.support.child import BUSY
from tests.support.command import headgate
from tests.support.played import PlayedWorker, ids_of, settings_for
from tests.support.proxy import TcpProxy
from tests.support.servers import PostgresServer, ValkeyServer

QUEUE = "headgate.standard.fast"


@pytest.fixture
def client(valkey: ValkeyServer, database_url: str, tmp_path: Path) -> Iterator[Client]:
    with Client(settings_for(valkey.url, database_url, tmp_path)) as opened:
        yield opened


def ask(client: Client, key: str, prompt: str = "Hello", **fields: Any) -> str:
    return client.submit(prompt, idempotency_key=key, **fields).id


def queued(client: Client) -> int:
    at = client.open()
    return int(at.redis.llen(at.keys.queue(QUEUE)))


def age_by(client: Client, ms: int) -> None:
    """Make all keys older by so many ms."""
    older = idempotency.c.created_at_ms - ms
    with writing(client.open().engine) as connection:
        connection.execute(update(idempotency).values(created_at_ms=older))


def test_the_same_request_with_the_same_key_is_the_same_job(client: Client) -> None:
    first = ask(client, "k", params={"max_tokens": 5, "temperature": 0}, user="u")
    again = ask(client, "k", user="u", params={"temperature": 0, "max_tokens": 5})
    spelled_out = ask(
        client, "k", user="u", params={"max_tokens": 5, "temperature": 0}, tenant="default"
    )
    assert again == spelled_out == first
    assert ids_of(client.open()) == [first]
    assert queued(client) == 1


def test_a_job_that_has_ended_is_given_again_with_its_answer(client: Client) -> None:
    job_id = ask(client, "k")
    worker = PlayedWorker(client.open())
    worker.start(job_id)
    worker.end(job_id)
    job = client.submit("Hello", idempotency_key="k")
    assert job.result(timeout_s=5).content == f"answer to {job_id}"


def test_another_request_with_the_same_key_is_refused(client: Client) -> None:
    first = ask(client, "k")
    with pytest.raises(IdempotencyConflict) as caught:
        ask(client, "k", "Hello again")
    assert (caught.value.http_status, caught.value.code) == (409, "invalid_request")
    assert (caught.value.key, caught.value.job_id) == ("k", first)
    assert f"'k': job {first} has this key" in str(caught.value)
    assert ids_of(client.open()) == [first]


def test_each_tenant_has_keys_of_its_own(client: Client) -> None:
    assert ask(client, "k", tenant="a") != ask(client, "k", tenant="b")


def test_after_a_day_a_key_may_be_used_again(client: Client) -> None:
    first = ask(client, "k")
    age_by(client, KEY_KEPT_MS - 60_000)
    assert ask(client, "k") == first
    age_by(client, 60_000)
    second = ask(client, "k", "Something else")
    assert second != first
    assert ask(client, "k", "Something else") == second


def test_keys_are_pruned_after_a_day(client: Client) -> None:
    engine = client.open().engine
    client.submit_many({"prompt": "old", "idempotency_key": f"old {i}"} for i in range(3))
    age_by(client, KEY_KEPT_MS)
    ask(client, "new")
    with reading(engine) as connection:
        now_ms: Any = connection.scalar(select(func.max(idempotency.c.created_at_ms)))
    forget_idempotency_keys(engine, now_ms)
    with reading(engine) as connection:
        assert list(connection.scalars(select(idempotency.c.key))) == ["new"]


def test_a_key_twice_among_many_requests_is_one_job(client: Client) -> None:
    hello: RequestFields = {"prompt": "Hello", "idempotency_key": "k"}
    requests: list[Any] = [hello, "plain", hello, *["fill"] * ROWS_PER_COMMIT, hello]
    ids = client.submit_many(requests)
    assert ids[0] == ids[2] == ids[-1]
    assert len(set(ids)) == len(ids) - 2
    assert sorted(ids_of(client.open())) == sorted(set(ids))
    assert queued(client) == len(ids) - 2
    assert client.submit_many([hello]) == ids[:1]


def test_a_conflict_among_many_requests_queues_none_of_them(client: Client) -> None:
    first = ask(client, "k")
    plain: list[RequestFields] = [{"prompt": f"p{i}"} for i in range(ROWS_PER_COMMIT + 1)]
    conflicts: list[list[RequestFields]] = [
        [{"prompt": "Other", "idempotency_key": "k"}],
        [{"prompt": p, "idempotency_key": "new"} for p in ("a", "b")],
    ]
    for others in conflicts:
        with pytest.raises(IdempotencyConflict):
            client.submit_many([*plain, *others])
    assert ids_of(client.open()) == [first]


def test_many_who_submit_at_once_get_one_job(
    client: Client, valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> None:
    keys = [f"k{i}" for i in range(8)]
    start = Barrier(6)

    def one(number: int) -> list[str]:
        chosen = settings_for(valkey.url, database_url, tmp_path)
        with Client(chosen) as mine:
            mine.open()
            start.wait(20 * BUSY)
            # Some the other way round: no two may wait for each other.
            order = keys if number % 2 else keys[::-1]
            ids = mine.submit_many({"prompt": k, "idempotency_key": k} for k in order)
            return ids if number % 2 else ids[::-1]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(one, range(6)))
    assert all(ids == answers[0] for ids in answers)
    assert sorted(ids_of(client.open())) == sorted(answers[0])
    assert queued(client) == len(keys)


def test_a_known_key_takes_nothing_more_from_a_limit(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text("[tiers.small]\nrpm = 2\n")
    with Client(settings_for(valkey.url, sqlite_url, tmp_path, catalog=catalog)) as client:
        fields: Any = {"tier": "small", "on_limit": "refuse"}
        first = ask(client, "k", **fields)
        assert {ask(client, "k", **fields) for _ in range(5)} == {first}
        again: Any = {"prompt": "Hello", "idempotency_key": "k", **fields}
        assert client.submit_many([again]) == [first]
        ask(client, "other", **fields)  # the second of two a minute


def test_a_job_whose_message_was_lost_is_sent_when_it_is_submitted_again(
    valkey: ValkeyServer,
    database_url: str,
    tmp_path: Path,
    tcp_proxy: Callable[[int], TcpProxy],
) -> None:
    proxy = tcp_proxy(valkey.port)
    url = f"redis://127.0.0.1:{proxy.port}/0"
    with Client(settings_for(url, database_url, tmp_path)) as client:
        at = client.open()
        event.listen(at.engine, "commit", lambda _: proxy.refuse(), once=True)
        with pytest.raises(SubmitInterrupted) as caught:
            ask(client, "k")
        proxy.accept()
        assert queued(client) == 0
        assert caught.value.job_ids == (ask(client, "k"),)
        assert queued(client) == 1


def test_a_commit_whose_answer_was_lost_may_be_repeated(
    valkey: ValkeyServer,
    postgres: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
    tcp_proxy: Callable[[int], TcpProxy],
) -> None:
    proxy = tcp_proxy(postgres.port)
    url = postgres_url.replace(f":{postgres.port}/", f":{proxy.port}/")
    with Client(settings_for(valkey.url, url, tmp_path)) as client:
        at = client.open()
        event.listen(at.engine, "commit", lambda _: proxy.cut(), once=True)
        with pytest.raises(SubmitInterrupted):
            ask(client, "k")
        job_id = ask(client, "k")
        assert ask(client, "k") == job_id
        assert ids_of(at) == [job_id]


def test_commands_say_which_job_has_a_key(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    client = Client(settings_for(valkey.url, sqlite_url, tmp_path))
    at = client.open()
    first = ask(client, "k")
    lines = [
        {"prompt": "Hello", "idempotency_key": "k"},
        {"prompt": "Other", "idempotency_key": "k"},
        {"prompt": "Mine", "idempotency_key": "mine"},
    ]
    file = tmp_path / "in.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chosen = at.settings
    env = {
        "HEADGATE_HOME": str(chosen.home),
        "HEADGATE_REDIS_URL": chosen.redis_url or "",
        "HEADGATE_DATABASE_URL": chosen.database_url or "",
    }
    done = headgate(["batch", "submit", file], env)
    assert f"line 1: idempotency_key: 'k': job {first} has this key already" in done.err
    assert f"line 2: idempotency_key: 'k': job {first} has this key for a different" in done.err
    assert len(ids_of(at)) == 2
    same = headgate(["submit", "Hello", "--idempotency-key", "k"], env)
    assert (same.code, same.out) == (0, f"{first}\n")
    other = headgate(["submit", "Other", "--idempotency-key", "k"], env)
    assert (other.code, other.out) == (2, "")
    assert f"job {first} has this key" in other.err
    client.close()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    migrate.upgrade(opened)
    yield opened
    opened.dispose()


submits = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("kl"), st.sampled_from("xy")),
                 min_size=1, max_size=4),
        st.sampled_from([1, KEY_KEPT_MS // 2, KEY_KEPT_MS]),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(submits)
def test_a_key_always_means_the_first_job_of_its_day(
    engine: Engine, submits: list[tuple[list[tuple[str, str, str]], int]]
) -> None:
    of_this_run, at_ms, made = uuid4().hex, 0, 0
    held: dict[tuple[str, str], IdempotencyKey] = {}
    for wanted, later_ms in submits:
        at_ms += later_ms
        claims = []
        for tenant, key, body in wanted:
            made += 1
            job_id = f"{of_this_run}-{made}"
            claims.append(IdempotencyKey(f"{of_this_run}{tenant}", key, body, job_id, at_ms))
        expected = {}
        for claim in claims:
            holder = held.get(claim[:2])
            if holder is None or holder.at_ms <= at_ms - KEY_KEPT_MS:
                held[claim[:2]] = claim
            else:
                expected[claim.job_id] = KeyOwner(
                    holder.job_id, holder.body_sha256 == claim.body_sha256
                )
        assert look(engine, claims) == expected
        with writing(engine) as connection:
            assert take(connection, claims) == expected
