"""A call goes on with responses of the tenant and the user for whom it is made, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headgate.producer.callers.caller import OPEN_CALLER, Caller
from headgate.producer.dialects.responses.ids import response_id
from headgate.producer.gateway.calls import previous_response
from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.find_response import find_response
from headgate.producer.gateway.calls.previous_response import continued, whole_input
from headgate.producer.results.on_record import JobOnRecord
from headgate.shared.catalog import catalog
from headgate.shared.job.request import request_from
from headgate.shared.job.result import Result

JOB = "01930000-0000-7000-8000-000000000001"
ANY_USER = Caller(key_id="k", tenant="acme", any_user=True)


def on_record(job_id: str, **params: Any) -> JobOnRecord:
    fields = {"dialect": "responses", "input": "Hi", "tenant": "acme", "user": "ann"}
    metadata = {"response.previous_response_id": response_id(JOB)}
    request = request_from({**fields, "metadata": metadata, "params": params})
    return JobOnRecord(request, Result(job_id, "succeeded", "m", content="Hello"), False, 1000)


def operations(**params: Any) -> Any:
    return SimpleNamespace(
        current=lambda: SimpleNamespace(catalog=catalog.load(None)),
        job_on_record=lambda job_id: on_record(job_id, **params),
    )


def call(caller: Caller, **fields: Any) -> GatewayCall:
    params = {"previous_response_id": response_id(JOB)}
    given: Any = {"input": "More", "params": params, **fields}
    return GatewayCall("responses", "responses", caller, given, "req_1", "gpt-4o-mini", 1)


@pytest.mark.parametrize(
    ("caller", "tenant", "user", "expected"),
    [
        (ANY_USER, "acme", "ann", True),
        (ANY_USER, "acme", None, True),
        (ANY_USER, "acme", "bob", False),
        (OPEN_CALLER, "acme", "ann", True),
        (OPEN_CALLER, "acme", "bob", False),
        (OPEN_CALLER, "default", None, False),
    ],
)
async def test_a_call_goes_on_only_with_what_is_of_whom_it_names(
    caller: Caller, tenant: str, user: str | None, expected: bool
) -> None:
    named = {"tenant": tenant} if user is None else {"tenant": tenant, "user": user}
    if expected:
        fields: Any = (await continued(operations(), call(caller, **named))).fields
        assert [item["content"] for item in fields["input"]][-1] == "More"
        return
    with pytest.raises(CallRefused) as refused:
        await continued(operations(), call(caller, **named))
    assert refused.value.code == "not_found"


async def test_odd_fields_are_left_to_the_checks_of_the_request() -> None:
    fields: Any = (
        await continued(operations(), call(ANY_USER, tenant="acme", input=5, metadata=[1]))
    ).fields
    assert (fields["metadata"], fields["input"][-1]) == ([1], 5)


async def test_a_long_conversation_is_not_read_back_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previous_response, "MOST_CHARACTERS", 2500)
    at = operations(previous_response_id="of the vendor")
    found = await find_response(at, ANY_USER, response_id(JOB))
    with pytest.raises(CallRefused, match="too long"):
        await whole_input(at, ANY_USER, found)
