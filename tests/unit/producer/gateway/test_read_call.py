"""What a call asks for beside the vendor's own fields."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from headgate.producer.callers.caller import OPEN_CALLER
from headgate.producer.gateway.calls.read_call import read_call
from headgate.shared.settings import Settings


async def fields_of(body: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Return the fields of a response that is asked for."""
    sent = {"model": "gpt-4o-mini", "input": "Hi", **body}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(sent).encode(), "more_body": False}

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/responses", "headers": named,
             "query_string": b""}  # fmt: skip
    call = await read_call(Request(scope, receive), "responses", OPEN_CALLER, Settings(), "req_1")
    return dict(call.fields)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({}, {}),
        ({}, {"x_headgate_cache": "exact"}),
        ({"headgate": {"cache": {"mode": "exact", "ttl_s": 60}}}, {}),
        ({"headgate": {"metadata": {"response.store": True}}}, {}),
    ],
)
async def test_what_is_not_stored_is_in_no_cache_and_goes(
    body: dict[str, Any], headers: dict[str, str]
) -> None:
    found = await fields_of({"store": False, **body}, **headers)
    assert found["cache"] == {"mode": "off"}
    assert found["metadata"]["response.store"] is False
