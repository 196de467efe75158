"""Bodies of Anthropic's calls as fields of a request, and results as messages."""

from typing import Any

import orjson
import pytest
from anthropic.types import Message

from headgate.producer.dialects import anthropic
from headgate.shared.errors import InvalidRequest
from tests.support.vendor_answers import VendorAnswer, choice, completion
from tests.unit.producer.dialects.answers import ANSWERS, JOB, STATIC, result_of
from tests.unit.producer.dialects.streaming import stream_for

BODY: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hi"}],
}


def test_all_but_model_messages_and_streaming_is_sent_as_it_is() -> None:
    body = {**BODY, "stream": True, "system": "Be brief.", "metadata": {"user_id": "u"}, "x": 1}
    assert anthropic.message_fields(body) == {
        "dialect": "anthropic", "model": BODY["model"], "messages": BODY["messages"],
        "stream": True, "events": True,
        "params": {"max_tokens": 50, "system": "Be brief.", "metadata": {"user_id": "u"}, "x": 1},
    }  # fmt: skip
    assert "stream" not in anthropic.message_fields({**BODY, "stream": False})


@pytest.mark.parametrize(
    ("more", "field"), [({"messages": None}, "messages"), ({"stream": 1}, "stream")]
)
def test_a_fault_names_the_field_of_the_body(more: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        anthropic.message_fields({**BODY, **more})
    assert refused.value.field == field


@pytest.mark.parametrize("sent", ANSWERS, ids=lambda sent: sent.feature)
def test_every_answer_is_a_message(sent: VendorAnswer) -> None:
    body = anthropic.message(result_of(sent).as_json())
    if sent.dialect == "anthropic":
        assert orjson.dumps(body) == orjson.dumps(sent.body)
    else:
        Message.model_validate(body, strict=True)
        assert body["id"] == f"msg_{JOB.replace('-', '')}"
        texts = [block["text"] for block in body["content"] if block["type"] == "text"]
        assert texts == [sent.content] * bool(sent.content) or sent.feature == "refusal"


def message_of(feature: str) -> dict[str, Any]:
    """Return the message for this sample."""
    sent = next(one for one in ANSWERS if one.feature == feature)
    return anthropic.message(result_of(sent).as_json())


def test_calls_and_tokens_of_openai_are_translated() -> None:
    body = message_of("two calls of OpenAI")
    direct = {"caller": {"type": "direct"}}
    assert body["content"] == [
        {"type": "text", "text": "I look.", "citations": None},
        {"type": "tool_use", "id": "call_0", "name": "find", "input": {"q": "find"}, **direct},
        {"type": "tool_use", "id": "call_1", "name": "sum", "input": {"q": "sum"}, **direct},
    ]
    assert (body["stop_reason"], body["stop_sequence"]) == ("tool_use", None)
    # 19 of the prompt, 8 of them read from the cache
    assert body["usage"] == {
        "input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 8,
        "cache_creation": None,
        "output_tokens": 10, "output_tokens_details": {"thinking_tokens": 2},
        "server_tool_use": None, "service_tier": "standard", "inference_geo": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("feature", "blocks"),
    [
        ("reasoning_content", [("thinking", "2 and 2"), ("text", "4")]),
        ("reasoning_details", [("thinking", "2 and 2"), ("text", "4")]),
        ("content in parts", [("thinking", "2 and 2"), ("text", "It is 4")]),
        ("refusal", [("text", "I cannot help.")]),
        ("several choices", [("text", "one")]),
        ("no text of OpenAI", []),
    ],
)
def test_reasoning_is_thinking_and_a_refusal_is_text(
    feature: str, blocks: list[tuple[str, str]]
) -> None:
    content = message_of(feature)["content"]
    assert [(block["type"], block[block["type"]]) for block in content] == blocks


def test_a_refusal_says_so_at_its_end() -> None:
    body = message_of("refusal")
    assert body["stop_reason"] == "refusal"
    assert body["stop_details"]["explanation"] == "I cannot help."


def test_an_annotation_is_a_citation_of_its_text() -> None:
    (block,) = message_of("annotations")["content"]
    (cited,) = block["citations"]
    assert (cited["url"], cited["cited_text"]) == ("https://example.com/?a=1", "News")


def test_calls_of_other_kinds_are_tools_too() -> None:
    found, asked = message_of("tool_calls")["content"]
    assert found["input"] == {"q": 1}
    assert (asked["name"], asked["input"]) == ("sql", {"input": "select 1"})
    (old,) = message_of("function_call")["content"]
    assert (old["name"], old["input"]) == ("find", {"q": "x"})
    assert old["id"] == f"toolu_{JOB.replace('-', '')}0"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"),
     ("odd", "end_turn"), (None, "end_turn")],
)  # fmt: skip
def test_why_an_answer_of_openai_ended(finish: Any, reason: str) -> None:
    sent = VendorAnswer("x", "openai", completion(choice({"content": "x"}, finish)), [], "x")
    assert anthropic.message(result_of(sent).as_json())["stop_reason"] == reason


def test_a_whole_number_of_any_size_stays_whole() -> None:
    written = '{"n":123456789012345678901234567890}'
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": written}}
    body = completion(choice({"tool_calls": [call]}, "tool_calls"))
    result = result_of(VendorAnswer("x", "openai", body, [], None))
    made = anthropic.message(result.as_json())
    assert made["content"][0]["input"] == {"n": 123456789012345678901234567890}
    events = b"".join(event.data for event in stream_for("anthropic").end(result))
    assert orjson.dumps(written) in events


@pytest.mark.parametrize("written", ["", '{"q": ', "null", "[1]"])
def test_a_call_with_cut_arguments_has_no_input(written: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": written}}
    body = completion(choice({"tool_calls": [call]}, "stop"))
    made = anthropic.message(result_of(VendorAnswer("x", "openai", body, [], None)).as_json())
    Message.model_validate(made, strict=True)
    assert (made["content"][0]["input"], made["stop_reason"]) == ({}, "tool_use")


def test_an_answer_without_a_vendors_message_is_a_message() -> None:
    body = anthropic.message(STATIC.as_json())
    Message.model_validate(body, strict=True)
    assert body["content"] == [{"type": "text", "text": "Come back later.", "citations": None}]
    assert (body["model"], body["stop_reason"]) == ("static", "end_turn")


def test_a_field_that_a_compatible_server_leaves_out_is_ours() -> None:
    sent = {"content": [{"type": "text", "text": "x"}], "x_new": 1}
    body = anthropic.message(
        result_of(VendorAnswer("x", "anthropic", sent, [], "x")).as_json()
    )  # fmt: skip
    Message.model_validate(body, strict=True)
    assert (body["content"], body["x_new"]) == (sent["content"], 1)
