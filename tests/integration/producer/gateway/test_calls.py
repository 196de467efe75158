"""Calls at the gateway, with a real worker and a simulated provider."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate import Client
from headgate.shared.settings import Settings
from tests.support.child import BUSY, wait_until
from tests.support.gateway import Answered, Gateway, House, ask, house, raw
from tests.support.servers import Simulator, ValkeyServer

CHAT = "/v1/chat/completions"


@pytest.fixture
def at(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> Iterator[House]:
    """A house with a quick provider."""
    simulator = simulator_factory("--latency-ms", "20")
    with house(valkey, sqlite_url, simulator, tmp_path) as found:
        yield found


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    messages = [{"role": "user", "content": text}]
    return {"model": "gpt-4o-mini", "max_tokens": 20, "messages": messages, **fields}


def client_of(at: House) -> Client:
    """The library on the same servers."""
    env = at.env
    settings = Settings(
        redis_url=env["HEADGATE_REDIS_URL"], database_url=env["HEADGATE_DATABASE_URL"],
        home=Path(env["HEADGATE_HOME"]),
    )  # fmt: skip
    return Client(settings)


def test_a_call_is_a_job_and_its_headers_say_what_happened(at: House) -> None:
    first = ask(at.gateway, CHAT, chat("hello"), x_headgate_user="u1")
    assert first.status == 200, first.body
    assert first.json["object"] == "chat.completion"
    assert first.json["choices"][0]["message"]["content"]
    headers = first.headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-headgate-model-used"] == "gpt-4o-mini"
    assert (headers["x-headgate-cached"], headers["x-headgate-attempts"]) == ("none", "1")
    assert float(headers["x-headgate-cost-usd"]) > 0
    with client_of(at) as client:
        result = client.result(headers["x-headgate-job-id"])
        assert result.status == "succeeded"
        assert result.cost_usd == headers["x-headgate-cost-usd"]
        [row] = client.jobs(limit=1)
        assert (row.priority, row.user) == ("interactive", "u1")
    again = ask(at.gateway, CHAT, chat("hello"))
    assert again.headers["x-headgate-cached"] == "exact"
    assert again.headers["x-headgate-cost-usd"] == "0"
    assert again.json["choices"] == first.json["choices"]
    assert at.simulator.stats()["requests"] == 1


def test_our_own_fields_ride_in_headers_and_in_the_body(at: House) -> None:
    body = chat("one", headgate={"metadata": {"run": "7"}, "tenant": "acme", "cache": "off"})
    answered = ask(at.gateway, CHAT, body, x_headgate_priority="bulk")
    assert answered.status == 200, answered.body
    with client_of(at) as client:
        result = client.result(answered.headers["x-headgate-job-id"])
        assert result.metadata == {"run": "7"}
        [row] = client.jobs(tenant="acme")
        assert row.priority == "bulk"
    for wrong, field in (
        ({"headgate": {"colour": "red"}}, "headgate.colour"),
        ({"headgate": 5}, "headgate"),
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"stream": "yes"}, "stream"),
        ({"model": "gpt-4o-mimi"}, "model"),
    ):
        refused = ask(at.gateway, CHAT, {**chat("two"), **wrong})
        assert refused.status in (400, 404), refused.body
        assert refused.json["error"]["param"] == field
        assert refused.headers["x-should-retry"] == "false"
    refused = ask(at.gateway, CHAT, chat("three"), x_headgate_deadline_s="soon")
    assert (refused.status, "x-headgate-deadline-s" in refused.body.decode()) == (400, True)


def test_embeddings_come_as_numbers_or_in_base64(at: House) -> None:
    body = {"model": "text-embedding-3-small", "input": ["one", "two"], "dimensions": 8}
    plain = ask(at.gateway, "/v1/embeddings", body)
    packed = ask(at.gateway, "/v1/embeddings", {**body, "encoding_format": "base64"})
    assert (plain.status, packed.status) == (200, 200), plain.body
    for number, text in zip(plain.json["data"], packed.json["data"], strict=True):
        numbers = struct.unpack("<8f", base64.b64decode(text["embedding"]))
        assert numbers == pytest.approx(number["embedding"])


def test_models_are_listed_in_the_dialect_that_asks(at: House) -> None:
    ours = ask(at.gateway, "/v1/models").json
    assert ours["object"] == "list"
    assert {"gpt-4o-mini", "claude-haiku-4-5"} <= {one["id"] for one in ours["data"]}
    page = ask(at.gateway, "/v1/models?limit=2", anthropic_version="2023-06-01").json
    assert (len(page["data"]), page["has_more"]) == (2, True)
    names: list[str] = []
    path = "/v1/models?limit=7"
    while True:
        page = ask(at.gateway, path, anthropic_version="2023-06-01").json
        names += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        path = f"/v1/models?limit=7&after_id={page['last_id']}"
    assert names == sorted(one["id"] for one in ours["data"])
    one = ask(at.gateway, "/v1/models/openai/gpt-4o-mini").json
    assert one["id"] == "gpt-4o-mini"
    assert ask(at.gateway, "/v1/models/none").status == 404
    made_up = ask(at.gateway, "/v1/models?after_id=none", anthropic_version="2023-06-01")
    assert (made_up.status, made_up.json["type"]) == (400, "error")


def test_tokens_are_counted_in_anthropics_form(at: House) -> None:
    body = {"model": "claude-haiku-4-5", "messages": [{"role": "user", "content": "hello " * 100}]}
    counted = ask(at.gateway, "/v1/messages/count_tokens", body)
    assert counted.status == 200, counted.body
    assert 80 < counted.json["input_tokens"] < 250
    wrong = ask(at.gateway, "/v1/messages/count_tokens", {"model": "claude-haiku-4-5"})
    assert (wrong.status, wrong.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_retry_takes_up_the_first_job(at: House) -> None:
    """The vendors' libraries ask again with a count; a caller may give a key."""
    body = chat("[[fault:slow:ms=1500]] slow", headgate={"cache": "off", "share": False})
    answers: list[Answered] = []

    def call(count: str) -> None:
        answers.append(ask(at.gateway, CHAT, body, x_stainless_retry_count=count))

    first = threading.Thread(target=call, args=("0",))
    first.start()
    with client_of(at) as client:
        wait_until(lambda: client.jobs(limit=1), 20, "the first call")
        call("1")
        first.join()
        ids = {one.headers["x-headgate-job-id"] for one in answers}
        assert len(ids) == 1
        for _ in range(2):
            ask(at.gateway, CHAT, body, idempotency_key="k1")
        assert len(client.jobs()) == 2
    conflict = ask(at.gateway, CHAT, chat("another"), x_headgate_idempotency_key="k1")
    assert conflict.status == 409
    assert at.simulator.stats()["requests"] == 2


def test_the_job_of_a_caller_that_goes_away_is_cancelled(at: House) -> None:
    """Unless the caller wants it all the same."""
    body = chat("[[fault:slow:ms=120000]] never", headgate={"cache": "off", "share": False})
    with client_of(at) as client:
        for number, detach in enumerate(("false", "true"), 1):
            connection = raw(at.gateway, _request(body, {"x-headgate-detach": detach}))
            job_id = _running(client, number)
            connection.close()
            if detach == "false":
                ended = client.result(job_id, timeout_s=20 * BUSY)
                assert ended.status == "cancelled"
        assert client.result(job_id).status == "running"
        client.cancel(job_id)


def _running(client: Client, many: int) -> str:
    """The newest of so many jobs, once it runs."""
    wait_until(lambda: len(client.jobs()) == many, 20, "the job")
    job_id = client.jobs(limit=1)[0].id
    wait_until(lambda: client.result(job_id).status == "running", 20, "its start")
    return job_id


def _request(body: dict[str, Any], headers: dict[str, str]) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"content-length: {len(data)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + data


def test_without_a_worker_a_call_is_refused_soon_unless_it_is_patient(at: House) -> None:
    assert at.worker.stop(30) == 0
    began = time.monotonic()
    refused = ask(at.gateway, CHAT, chat("nobody"))
    assert (refused.status, "no worker" in refused.body.decode()) == (503, True), refused.body
    assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 60 * BUSY
    patient = ask(at.gateway, CHAT, chat("patient"), x_headgate_deadline_s="7")
    assert patient.status == 504, patient.body
    ready = ask(at.gateway, "/health/ready")
    assert (ready.status, ready.json["workers"]) == (503, 0)
    with client_of(at) as client:
        late, gone = client.jobs()
        wait_until(lambda: client.result(gone.id).status == "cancelled", 30, "the first to end")
        at.worker.start()
        wait_until(lambda: client.result(late.id).status == "expired", 60, "the second to end")


def test_without_its_servers_a_gateway_says_so(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path, sqlite_url: str
) -> None:
    valkey = valkey_factory()
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
    }  # fmt: skip
    valkey.stop()
    with Gateway(env, tmp_path) as gateway:
        refused = ask(gateway, CHAT, chat("hello"))
        assert (refused.status, refused.headers["retry-after"]) == (503, "5"), refused.body
        assert ask(gateway, "/health/ready").status == 503
        assert ask(gateway, "/health/live").status == 200
