"""OpenAI's SDK asks the gateway for responses: whole, streamed, in the background, and in turns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel
from sqlalchemy import select

from headgate.shared.database.engine import open_engine, reading
from headgate.shared.database.tables import jobs
from tests.support.child import BUSY, wait_until
from tests.support.command import headgate
from tests.support.gateway import Gateway, House, ask, house
from tests.support.installation import ended_afterwards
from tests.support.servers import Simulator, ValkeyServer, short_folder

MODEL = "gpt-4o-mini"
CLAUDE = "claude-haiku-4-5"
PATH = "/v1/responses"


@dataclass
class Responders:
    """A house with two gateways, and a key of each of two tenants."""

    at: House
    other: Gateway
    amber: str
    birch: str
    opened: ExitStack

    def client(self, key: str = "", gateway: Gateway | None = None) -> OpenAI:
        """OpenAI's client with a key, amber's if none is given."""
        url = f"{(gateway or self.at.gateway).url}/v1"
        client = OpenAI(
            base_url=url, api_key=key or self.amber, max_retries=0, timeout=60 * BUSY,
            default_headers={"x-headgate-cache": "off"},
        )  # fmt: skip
        return self.opened.enter_context(client)


@pytest.fixture(scope="module")
def responders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Responders]:
    """All tests here share one house: each asks for something of its own."""
    folder = tmp_path_factory.mktemp("responders")
    simulator = Simulator(folder / "simulator", ("--latency-ms", "20"))
    with short_folder() as own, ValkeyServer(own) as valkey:
        try:
            url = f"sqlite:///{folder / 'headgate.db'}"
            with house(valkey, url, simulator.start(), folder, gateway_open="0") as at:
                other = Gateway({**at.env, "HEADGATE_GATEWAY_OPEN": "0"}, folder, name="other")
                with ended_afterwards(other):
                    other.start()
                    amber, birch = _key(at, "amber"), _key(at, "birch")
                    with ExitStack() as opened:
                        yield Responders(at, other, amber, birch, opened)
        finally:
            simulator.kill()


def _key(at: House, tenant: str) -> str:
    made = headgate(("keys", "create", tenant, "--tenant", tenant), at.env)
    assert made.code == 0, made
    return made.out.strip()


def ended(client: OpenAI, response_id: str) -> Response:
    """Return the response once it has ended."""
    found: list[Response] = []

    def has_ended() -> bool:
        found[:] = [client.responses.retrieve(response_id)]
        return found[0].status not in ("queued", "in_progress")

    wait_until(has_ended, 30, f"{response_id} to end")
    return found[0]


@pytest.mark.parametrize("model", [MODEL, CLAUDE])
def test_a_response_is_made_and_read_again(responders: Responders, model: str) -> None:
    client = responders.client()
    made = client.responses.create(
        model=model, input="Name a river.", instructions="Be brief.", metadata={"run": "7"},
        max_output_tokens=30,
    )  # fmt: skip
    assert (made.status, made.object) == ("completed", "response")
    assert made.id.startswith("resp_")
    assert made.output_text
    assert made.usage is not None
    assert made.usage.output_tokens > 0
    assert (made.metadata, made.instructions) == ({"run": "7"}, "Be brief.")
    again = client.responses.retrieve(made.id)
    assert again.to_dict() == made.to_dict()
    [item] = client.responses.input_items.list(made.id).data
    shown: Any = item.to_dict()
    assert (shown["type"], shown["role"]) == ("message", "user")
    assert shown["content"] == [{"type": "input_text", "text": "Name a river."}]


@pytest.mark.parametrize("model", [MODEL, CLAUDE])
def test_a_stream_is_the_same_at_every_gateway_and_goes_on_anywhere(
    responders: Responders, model: str
) -> None:
    client = responders.client()
    first = [
        event.to_dict()
        for event in client.responses.create(
            model=model, input=f"Name a lake, {model}.", stream=True
        )
    ]
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    assert first[-1]["type"] == "response.completed"
    response_id = str(first[0]["response"]["id"])  # type: ignore[index]
    elsewhere = responders.client(gateway=responders.other)
    for after in (None, 0, 3):
        rest = elsewhere.responses.retrieve(
            response_id, stream=True, starting_after=openai.omit if after is None else after
        )
        read = [event.to_dict() for event in rest]
        assert _plain(read) == _plain(first[0 if after is None else after + 1 :])


def _plain(events: list[Any]) -> list[Any]:
    """The events without the model, which a response has from its vendor once it has ended."""
    return [
        {**event, "response": {**event["response"], "model": ""}} if "response" in event else event
        for event in events
    ]


class River(BaseModel):
    """An answer in a form of its own."""

    name: str
    length_km: int


def test_a_background_stream_that_breaks_goes_on_as_in_openais_example(
    responders: Responders,
) -> None:
    client = responders.client()
    response_id, seen = None, []
    with client.responses.stream(
        model=MODEL, input="Describe a river.", text_format=River, background=True
    ) as stream:
        for event in stream:
            if event.type == "response.created":
                response_id = event.response.id
                assert event.response.status == "queued"
            seen.append(event.sequence_number)
            if event.sequence_number == 5:
                break
    assert response_id is not None
    with responders.client(gateway=responders.other).responses.stream(
        response_id=response_id, starting_after=5, text_format=River
    ) as stream:
        seen += [event.sequence_number for event in stream]
        final = stream.get_final_response()
    assert seen == list(range(len(seen)))
    assert final.status == "completed"
    assert isinstance(final.output_parsed, River)
    assert final.background is True


def test_a_background_response_is_polled_and_cancelled(responders: Responders) -> None:
    client = responders.client()
    made = client.responses.create(model=MODEL, input="Name a sea.", background=True)
    assert (made.status, made.background, made.output) == ("queued", True, [])
    done = ended(client, made.id)
    assert (done.status, bool(done.output_text)) == ("completed", True)
    assert client.responses.cancel(made.id).to_dict() == done.to_dict()
    waiting = client.responses.create(
        model=MODEL, input="Name a cape.", background=True, max_output_tokens=2000,
        extra_headers={"x-headgate-priority": "bulk"},
    )  # fmt: skip
    stopped = client.responses.cancel(waiting.id)
    assert stopped.status in ("cancelled", "completed")
    whole = client.responses.create(model=MODEL, input="Name a bay.")
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.cancel(whole.id)
    assert "background" in str(refused.value)


def test_a_response_goes_on_with_an_earlier_one_of_any_model(responders: Responders) -> None:
    client = responders.client()
    first = client.responses.create(model=CLAUDE, input="My name is Ada.")
    second = client.responses.create(
        model=MODEL, input="What is my name?", previous_response_id=first.id
    )
    assert second.previous_response_id == first.id
    third = client.responses.create(
        model=CLAUDE, previous_response_id=second.id, input=[{"role": "user", "content": "Sure?"}]
    )
    listed = client.responses.input_items.list(third.id, order="asc").data
    items = [item.to_dict() for item in listed]
    texts = [(item["role"], item["content"][0]["text"]) for item in items]  # type: ignore[index]
    assert texts == [
        ("user", "My name is Ada."), ("assistant", first.output_text),
        ("user", "What is my name?"), ("assistant", second.output_text), ("user", "Sure?"),
    ]  # fmt: skip
    counted = client.responses.input_tokens.count(
        model=CLAUDE, input="Really?", previous_response_id=third.id
    )
    alone = client.responses.input_tokens.count(model=CLAUDE, input="Really?")
    assert counted.input_tokens > alone.input_tokens > 0
    for unknown in ("resp_123", f"resp_{'0' * 32}"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.responses.create(model=MODEL, input="x", previous_response_id=unknown)
        assert refused.value.param == "previous_response_id"


def test_a_conversation_at_one_vendor_is_bound_to_its_key_and_can_leave_it(
    responders: Responders,
) -> None:
    client = responders.client()
    first = client.responses.create(model=MODEL, input="My name is Bo.")
    second = client.responses.create(
        model="gpt-4o", input="What is my name?", previous_response_id=first.id
    )
    job = _request_of(responders, second.id)
    assert job["pinned"]["provider"] == "openai"
    assert job["input"] == "What is my name?"
    assert job["params"]["previous_response_id"].startswith("resp_")
    assert job["params"]["previous_response_id"] != first.id
    assert client.responses.retrieve(second.id).previous_response_id == first.id
    third = client.responses.create(
        model=CLAUDE, input="Are you sure?", previous_response_id=second.id
    )
    assert "pinned" not in _request_of(responders, third.id)
    for response_id, expected in ((second.id, 3), (third.id, 5)):
        pages = client.responses.input_items.list(response_id, limit=2)
        assert len(list(pages)) == expected


def _request_of(responders: Responders, response_id: str) -> Any:
    """The request of a response's job, as it is on record."""
    digits = response_id.removeprefix("resp_")
    engine = open_engine(responders.at.env["HEADGATE_DATABASE_URL"])
    with reading(engine) as connection:
        rows = connection.execute(select(jobs.c.id, jobs.c.envelope)).all()
    engine.dispose()
    [found] = [row.envelope for row in rows if row.id.replace("-", "") == digits]
    return json.loads(found)["request"]


def test_what_is_not_stored_or_deleted_is_not_found(responders: Responders) -> None:
    client = responders.client()
    made = client.responses.create(model=MODEL, input="the secret of an hour", store=False)
    assert made.output_text
    kept = client.responses.create(model=MODEL, input="the secret of a day")
    client.responses.delete(kept.id)
    for gone in (made.id, kept.id):
        for look in (
            lambda i: client.responses.retrieve(i),
            lambda i: client.responses.delete(i),
            lambda i: client.responses.cancel(i),
            lambda i: client.responses.input_items.list(i),
            lambda i: client.responses.create(model=MODEL, input="x", previous_response_id=i),
        ):
            with pytest.raises(openai.NotFoundError):
                look(gone)
    engine = open_engine(responders.at.env["HEADGATE_DATABASE_URL"])

    def secrets() -> int:
        with reading(engine) as connection:
            rows = connection.execute(select(jobs.c.envelope, jobs.c.result)).all()
        return sum("the secret of" in f"{row.envelope}{row.result}" for row in rows)

    wait_until(lambda: secrets() == 0, 30, "the prompts to be gone")
    engine.dispose()


def test_responses_of_another_tenant_are_not_found(responders: Responders) -> None:
    ours = responders.client().responses.create(model=MODEL, input="Name a hill.")
    theirs = responders.client(responders.birch)
    for path, method in (
        (f"{PATH}/{ours.id}", "GET"), (f"{PATH}/{ours.id}?stream=true", "GET"),
        (f"{PATH}/{ours.id}", "DELETE"), (f"{PATH}/{ours.id}/cancel", "POST"),
        (f"{PATH}/{ours.id}/input_items", "GET"),
    ):  # fmt: skip
        found = ask(
            responders.at.gateway, path, method=method, authorization=f"Bearer {responders.birch}"
        )
        unknown = ask(
            responders.at.gateway, path.replace(ours.id, f"resp_{'0' * 32}"), method=method,
            authorization=f"Bearer {responders.birch}",
        )  # fmt: skip
        assert found.status == unknown.status == 404, (path, found)
        assert found.json["error"] == {
            **unknown.json["error"],
            "message": unknown.json["error"]["message"].replace(f"resp_{'0' * 32}", ours.id),
        }
    with pytest.raises(openai.NotFoundError):
        theirs.responses.create(model=MODEL, input="x", previous_response_id=ours.id)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": MODEL}, "input"),
        ({"model": MODEL, "input": 5}, "input"),
        ({"model": MODEL, "input": "x", "background": "yes"}, "background"),
        ({"model": MODEL, "input": "x", "background": True, "store": False}, "store"),
        ({"model": MODEL, "input": "x", "stream": 1}, "stream"),
        ({"model": MODEL, "input": "x", "conversation": "conv_1"}, "conversation"),
        ({"model": MODEL, "input": "x", "previous_response_id": 7}, "previous_response_id"),
        ({"model": "gpt-4o-mimi", "input": "x"}, "model"),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_by_name(
    responders: Responders, body: dict[str, Any], param: str
) -> None:
    bearer = f"Bearer {responders.amber}"
    refused = ask(responders.at.gateway, PATH, body, authorization=bearer)
    assert refused.status in (400, 404), refused.body
    assert refused.json["error"]["param"] == param
    assert refused.json["error"]["type"] == "invalid_request_error"
