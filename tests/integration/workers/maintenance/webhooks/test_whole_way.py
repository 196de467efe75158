"""From a request to its receiver: all ways in which a job ends, commands, and a killed worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import update

from headgate import Client, InvalidRequest
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.database.tables import webhook_deliveries
from headgate.shared.settings import Settings
from tests.support.child import wait_until
from tests.support.command import Ended, headgate
from tests.support.gateway import House, ask, house
from tests.support.installation import ended_afterwards, worker_process, write_prompts
from tests.support.receiver import Received, Receiver
from tests.support.servers import Simulator, ValkeyServer

WITHIN_S = 30


@dataclass(frozen=True, slots=True)
class Place:
    """A house, a client of it, and a receiver of its webhooks."""

    house: House
    client: Client
    receiver: Receiver

    def command(self, *arguments: str | Path) -> Ended:
        ended = headgate(arguments, self.house.env)
        assert ended.code == 0, ended
        return ended

    def event_of(self, job_id: str, count: int = 1) -> Received:
        """The last of so many events of the job or batch."""
        received = self.receiver
        wait_until(lambda: len(received.of_job(job_id)) >= count, WITHIN_S, f"event of {job_id}")
        return received.of_job(job_id)[-1]

    def submit(self, prompt: str, **fields: Any) -> str:
        return self.client.submit(prompt, **{"webhook_url": self.receiver.url, **fields}).id


@pytest.fixture
def place(
    valkey: ValkeyServer, sqlite_url: str, simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[Place]:  # fmt: skip
    simulator = simulator_factory("--latency-ms", "20")
    allow = "127.0.0.0/8"
    with (
        Receiver() as receiver,
        house(valkey, sqlite_url, simulator, tmp_path, webhook_allow=allow) as found,
        Client(Settings(
            redis_url=valkey.url, database_url=sqlite_url, home=tmp_path / "home",
            webhook_allow=allow,
        )) as client,
    ):  # fmt: skip
        yield Place(found, client, receiver)


def test_every_end_of_a_job_reaches_its_receiver(place: Place, tmp_path: Path) -> None:
    ends_of_jobs(place)
    tenant_and_gateway(place)
    batch(place, tmp_path)
    with pytest.raises(InvalidRequest, match="HEADGATE_WEBHOOK_ALLOW"):
        place.submit("x", webhook_url="https://10.0.0.1/")
    assert "HEADGATE_WEBHOOK_ALLOW" in str(
        ask(place.house.gateway, "/v1/chat/completions", {
            "model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}],
            "headgate": {"webhook_url": "http://169.254.169.254/"},
        }).json
    )  # fmt: skip


def ends_of_jobs(place: Place) -> None:
    secret = place.command("webhooks", "secret", "create").out.strip()
    ids = {
        "succeeded": place.submit("well"),
        "failed": place.submit("[[fault:400]]", fallback=False),
        "expired": place.submit("[[fault:slow:ms=60000]] late", deadline_s=0.5),
        "cancelled": place.submit("[[fault:slow:ms=60000]] running"),
    }
    place.client.cancel(ids["cancelled"])
    place.command("pause", "queue", "headgate.bulk.fast")
    ids["cancelled waiting"] = place.submit("waits", priority="bulk")
    ids["expired waiting"] = place.submit("waits too", priority="bulk", deadline_s=0.5)
    place.client.cancel(ids["cancelled waiting"])
    client = openai.OpenAI(api_key="-", webhook_secret=secret)
    for name, job_id in ids.items():
        received = place.event_of(job_id)
        event: Any = client.webhooks.unwrap(received.body, received.headers)
        assert event.id == received.id
        status = name.split()[0]
        data = json.loads(received.body)["data"]
        assert (event.type, data["id"], data["status"]) == (f"job.{status}", job_id, status)
        assert "well" not in received.body
    response_id = place.client.submit(
        input="hello", instructions="Be brief.", webhook_url=place.receiver.url
    ).id.replace("-", "")
    received = place.event_of(response_id)
    event = client.webhooks.unwrap(received.body, received.headers)
    assert (event.type, event.data.id) == ("response.completed", f"resp_{response_id}")
    client.close()
    place.command("resume", "queue", "headgate.bulk.fast")

    listed = [json.loads(line) for line in
              place.command("webhooks", "list", "--json").out.splitlines()]  # fmt: skip
    assert {one["job_id"] for one in listed} >= set(ids.values())
    again = place.receiver.of_job(ids["succeeded"])[0].id
    wait_until(lambda: delivered(place, again), WITHIN_S, "the event to be on record")
    place.command("webhooks", "resend", again)
    assert place.event_of(ids["succeeded"], 2).id == again


def delivered(place: Place, event_id: str) -> bool:
    shown = place.command("webhooks", "show", event_id, "--json").document
    assert shown["body"]["id"] == event_id
    return bool(shown["state"] == "delivered")


def tenant_and_gateway(place: Place) -> None:
    """A job of a tenant calls its URL; a worker knows the URL within some seconds."""
    place.command("webhooks", "set", f"{place.receiver.url}/acme?key=s", "--tenant", "acme",
                  "--event", "job.succeeded")  # fmt: skip
    shown = place.command("webhooks", "tenants").out
    assert "acme" in shown
    assert "key=s" not in shown

    def has_called() -> bool:
        asked = ask(place.house.gateway, "/v1/chat/completions", {
            "model": "gpt-4o-mini", "messages": [{"role": "user", "content": "tenant"}],
        }, x_headgate_tenant="acme")  # fmt: skip
        assert asked.status == 200
        return any(one.path == "/hook/acme" for one in place.receiver.received)

    wait_until(has_called, WITHIN_S, "the webhook of the tenant")
    place.command("webhooks", "unset", "--tenant", "acme")


def batch(place: Place, folder: Path) -> None:
    prompts = write_prompts(folder / "in.jsonl", 20)
    place.command("batch", "run", prompts, "-o", folder / "out.jsonl", "--webhook-url",
                  place.receiver.url)  # fmt: skip
    [found] = [json.loads(line) for line in place.command("batch", "list", "--json").out.split("\n")
               if line]  # fmt: skip
    event = json.loads(place.event_of(found["id"]).body)
    assert (event["type"], event["data"]) == ("batch.completed", {"id": found["id"]})
    assert len(place.receiver.of_job(found["id"])) == 1, "none of its lines calls"


def test_a_worker_killed_in_the_middle_of_a_delivery_is_replaced(
    place: Place, tmp_path: Path, sqlite_url: str
) -> None:
    place.receiver.hangs = True
    job_id = place.submit("one")
    first = place.event_of(job_id)
    place.house.worker.kill()
    place.receiver.hangs = False
    engine = open_engine(sqlite_url)
    with writing(engine) as connection:  # a minute passes
        connection.execute(update(webhook_deliveries).values(due_at_ms=0))
    engine.dispose()
    other = worker_process(place.house.env, tmp_path, "other")
    with ended_afterwards(other):
        other.start()
        second = place.event_of(job_id, 2)
        assert second.id == first.id
        wait_until(lambda: delivered(place, first.id), WITHIN_S, "the second attempt to end")
    assert len(place.receiver.of_job(job_id)) == 2
