"""The result in its row: what comes out is what went in, and a long answer stands once."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.result import Result, Usage
from headgate.shared.job.result_text import (
    SHORTEST,
    decode_fields,
    decode_result,
    encode_result,
)
from tests.support.vendor_answers import VENDOR_ANSWERS, VendorAnswer

LONG = "a long answer " * 20
CHAT = {"id": "x", "choices": [{"message": {"role": "assistant", "content": LONG}, "index": 0}]}
MESSAGE = {"content": [{"type": "thinking", "thinking": LONG}, {"type": "text", "text": LONG}]}


def result(message: dict[str, Any] | None, content: str | None) -> Result:
    """Return the result of an answered job."""
    return Result("j", "succeeded", "m", content=content, usage=Usage(1), message=message)


@pytest.mark.parametrize("sent", VENDOR_ANSWERS, ids=lambda sent: sent.feature)
@pytest.mark.parametrize("times", [1, 50])
def test_every_answer_comes_back_as_it_was(sent: VendorAnswer, times: int) -> None:
    ended = result(sent.body, sent.content and sent.content * times)
    assert orjson.dumps(decode_result(encode_result(ended)).as_json()) == orjson.dumps(
        ended.as_json()
    )
    assert decode_fields(encode_result(ended)) == ended.as_json()


@pytest.mark.parametrize("message", [CHAT, MESSAGE], ids=["openai", "anthropic"])
def test_a_long_answer_stands_once(message: dict[str, Any]) -> None:
    before = orjson.dumps(message)
    ended = result(message, LONG)
    text = encode_result(ended)
    assert text.count(LONG) == orjson.dumps(message).count(LONG.encode())
    assert orjson.dumps(message) == before, "the message itself is left alone"
    assert orjson.dumps(decode_result(text).as_json()) == orjson.dumps(ended.as_json())


@given(st.text(max_size=2 * SHORTEST), st.text(max_size=2 * SHORTEST))
def test_a_content_that_is_not_the_vendors_text_is_kept_beside_it(ours: str, theirs: str) -> None:
    messages: list[dict[str, Any]] = [
        {"choices": [{"message": {"content": theirs}}]},
        {"content": [{"text": "x"}, {"text": theirs}]},
        {"content": theirs}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, {},
    ]  # fmt: skip
    for message in messages:
        ended = result(message, ours)
        assert decode_result(encode_result(ended)) == ended


def test_a_release_without_messages_reads_the_row_and_its_own_rows_are_read() -> None:
    fields = orjson.loads(encode_result(result(CHAT, LONG)))
    assert fields["content"] == LONG, "where a release looks that does not know the message"
    before = {name: fields[name] for name in fields if not name.startswith("message")}
    assert decode_result(orjson.dumps(before).decode()) == result(None, LONG)
