"""Bodies of /v1/responses become requests, and their input becomes items again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from headgate.producer.dialects.responses.body import (
    as_input,
    asked,
    asked_of,
    is_background,
    listed,
    request_items,
    response_fields,
)
from headgate.producer.dialects.responses.repeated import repeated
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import request_from
from tests.support.vendor_answers import Fields
from tests.unit.producer.dialects.answers import JOB

ITEM: TypeAdapter[Any] = TypeAdapter(ResponseItem)

BODY: Fields = {
    "model": "gpt-4o", "input": "Hi.", "instructions": "Be brief.", "store": True,
    "tools": [{"type": "function", "name": "f", "parameters": {}}], "stream": True,
    "stream_options": {"include_obfuscation": False}, "background": True, "temperature": 0.3,
}  # fmt: skip


def test_a_body_is_a_request_and_its_response_repeats_it() -> None:
    fields = response_fields(BODY)
    assert fields["params"].keys() == {"instructions", "store", "tools", "temperature"}
    assert (fields["stream"], fields["events"], "priority" in fields) == (True, True, False)
    request = request_from(dict(fields))
    assert is_background(request)
    told, later = repeated(asked(BODY)), repeated(asked_of(request, "gpt-4o"))
    assert told == later
    assert told["tools"] == [
        {"type": "function", "name": "f", "parameters": {}, "description": None, "strict": True}
    ]
    assert (told["background"], told["temperature"], told["top_p"]) == (True, 0.3, 1.0)


def test_what_is_not_stored_is_not_cached_and_what_nobody_awaits_has_time() -> None:
    unstored = response_fields({"model": "m", "input": "x", "store": False})
    assert unstored["metadata"] == {"response.store": False}
    assert response_fields({"model": "m", "input": "x", "background": True})["priority"] == (
        "standard"
    )


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"input": None, "instructions": None}, "input"),
        ({"background": "yes"}, "background"),
        ({"store": False}, "store"),
        ({"store": 0}, "store"),
        ({"stream": 1}, "stream"),
        ({"stream": False}, "stream_options"),
    ],
)
def test_a_bad_field_is_refused_by_name(more: Fields, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        response_fields({**BODY, **more})
    assert refused.value.field == field


ITEMS: list[Fields] = [
    {"role": "user", "content": "Hi."},
    {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]},
    {"role": "assistant", "content": "Yes?"},
    {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "4"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
]


def test_items_are_listed_in_the_form_of_openais_types() -> None:
    found = listed(ITEMS, JOB)
    assert len({item["id"] for item in found}) == len(ITEMS)
    for item in found:
        assert ITEM.validate_json(orjson.dumps(item), strict=True).type == item["type"]
    assert found[3]["content"] == [
        {"type": "output_text", "text": "Yes?", "annotations": [], "logprobs": []}
    ]
    assert listed(found, JOB) == found


def test_output_becomes_input_without_reasoning_and_ids() -> None:
    part = {"type": "output_text", "text": "4", "annotations": [], "logprobs": []}
    output: list[Fields] = [
        {"id": "rs_1", "type": "reasoning", "summary": []},
        {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
         "content": [part]},
        {"id": "fc_1", "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
    ]  # fmt: skip
    message, call = as_input(output)
    assert "id" not in message
    assert "id" not in call
    assert message["content"] == [{"type": "output_text", "text": "4", "annotations": []}]
    request = request_from({"dialect": "responses", "input": [message, call]})
    assert request_items(request) == [message, call]
    assert request_items(request_from({"dialect": "responses", "input": "Hi."})) == [
        {"type": "message", "role": "user", "content": "Hi."}
    ]
