"""Bounds of a call that submits many jobs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.requests import Request

from headgate.producer.gateway.jobs import submit
from headgate.shared.errors import InvalidRequest
from tests.unit.producer.gateway.doors import PlayedOperations, make_door


async def test_samples_do_not_multiply_a_large_body_beyond_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = json.dumps({"jobs": ["a long prompt"], "samples": 4}).encode()
    monkeypatch.setattr(submit, "MOST_BYTES", 3 * len(body))

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": [],
             "query_string": b""}  # fmt: skip
    played = PlayedOperations()
    door = make_door(played)
    with pytest.raises(InvalidRequest, match="with its samples a body may have"):
        await submit.submit(door, Request(scope, receive))
    assert played.submitted == []
