"""A submitted job has its row, then its message, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate import Client, InvalidRequest, RequestFields
from headgate.producer.submit.enqueue import ROWS_PER_COMMIT, enqueue
from headgate.producer.submit.submit import submitter_for
from headgate.shared.broker import queues
from tests.support.played import ids_of, row_of, settings_for
from tests.support.servers import ValkeyServer

PREFIX = "acme:"


@pytest.fixture(params=["", PREFIX], ids=["no prefix", "prefix"])
def client(
    request: pytest.FixtureRequest, valkey: ValkeyServer, database_url: str, tmp_path: Path
) -> Iterator[Client]:
    settings = settings_for(valkey.url, database_url, tmp_path, key_prefix=request.param)
    with Client(settings) as opened:
        yield opened


def messages(client: Client, queue: str) -> list[dict[str, Any]]:
    at = client.open()
    found: Any = at.redis.lrange(at.keys.queue(queue), 0, -1)
    return [orjson.loads(message) for message in reversed(found)]


def test_a_submitted_job_is_on_record_and_on_its_queue(client: Client) -> None:
    job = client.submit("Hello", model="gpt-4o-mini", priority="interactive", user="u1")
    row = row_of(client.open(), job.id)
    assert (row.status, row.priority, row.tenant, row.user_id, row.fence) == (
        "queued", "interactive", "default", "u1", 0
    )  # fmt: skip
    assert row.deadline_at_ms - row.submitted_at_ms == 86_400_000
    [message] = messages(client, "headgate.interactive.fast")
    assert message["headers"]["id"] == job.id
    assert message["headers"]["task"] == queues.TASK
    [[envelope], _, _] = orjson.loads(message["body"])
    assert envelope == orjson.loads(row.envelope)


def test_many_jobs_keep_their_order_over_several_transactions(client: Client) -> None:
    count = 2 * ROWS_PER_COMMIT + 7
    ids = client.submit_many({"prompt": f"p{i}", "metadata": {"i": i}} for i in range(count))
    assert len(set(ids)) == count
    assert [one.id for one in client.jobs(metadata={"i": 700})] == [ids[700]]
    assert sorted(ids_of(client.open())) == sorted(ids)
    assert [m["headers"]["id"] for m in messages(client, "headgate.standard.fast")] == ids


def test_many_jobs_of_many_classes_go_to_their_own_queues(client: Client) -> None:
    ids = client.submit_many(
        [
            {"prompt": "a", "priority": "bulk"},
            {"input": "b", "model": "text-embedding-3-small"},
            "c",
        ]
    )
    for job_id, queue in zip(
        ids, ("bulk.fast", "standard.embedding", "standard.fast"), strict=True
    ):
        assert [m["headers"]["id"] for m in messages(client, f"headgate.{queue}")] == [job_id]


def test_one_bad_request_among_many_queues_nothing(client: Client) -> None:
    requests: list[RequestFields] = [{"prompt": f"p{i}"} for i in range(ROWS_PER_COMMIT + 10)]
    requests[ROWS_PER_COMMIT + 5] = {"prompt": ""}
    with pytest.raises(InvalidRequest, match=rf"requests\[{ROWS_PER_COMMIT + 5}\].prompt"):
        client.submit_many(requests)
    assert ids_of(client.open()) == []
    at = client.open()
    assert at.redis.keys() == [at.keys.database().encode()]


def test_no_requests_are_no_jobs(client: Client) -> None:
    assert client.submit_many([]) == []


def test_a_prompt_with_nul_and_every_script_survives_the_record(client: Client) -> None:
    prompt = 'a\0b \u00e9 \u4e2d \U0001f600 \u2028 "quoted" \\ '
    job = client.submit(prompt)
    stored = orjson.loads(row_of(client.open(), job.id).envelope)
    assert stored["request"]["prompt"] == prompt


def test_a_prompt_given_twice_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="given twice"):
        client.submit("a", prompt="b")


def test_a_message_sent_twice_is_one_job(client: Client) -> None:
    at = client.open()
    prepared = list(submitter_for(at).prepare_many(["a", "b"]))
    enqueue(at.engine, at.redis, at.keys, prepared)
    assert queues.send(at.redis, at.keys, prepared) == 0
    assert len(messages(client, "headgate.standard.fast")) == 2


def test_a_request_of_nearly_ten_megabytes_is_queued(client: Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:," + "x" * 9_000_000}}
    job = client.submit(messages=[{"role": "user", "content": [picture]}])
    [message] = messages(client, "headgate.standard.fast")
    assert message["headers"]["id"] == job.id
