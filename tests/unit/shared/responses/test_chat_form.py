"""Requests of Responses as chat completions: what is carried, how, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from headgate.shared.job.request import Request
from headgate.shared.responses.beyond_chat import beyond_chat
from headgate.shared.responses.chat_form import chat_request, readable

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
AS_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"}
AS_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
SCHEMA = {"type": "object", "properties": {}}
TOOL = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": True}
AS_TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
OTHER = {"type": "function", "name": "g", "parameters": None}


def asked(given: Any = "x", **params: Any) -> Request:
    return Request(dialect="responses", input=given, params=params)


@pytest.mark.parametrize(
    ("items", "messages"),
    [
        ("Hi", [{"role": "user", "content": "Hi"}]),
        ([{"role": "developer", "content": "Be kind."}],
         [{"role": "system", "content": "Be kind."}]),
        ([{"role": "user", "content": [{"type": "input_text", "text": "a"}, IMAGE]}],
         [{"role": "user", "content": [{"type": "text", "text": "a"}, AS_IMAGE]}]),
        ([{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content":
           [{"type": "output_text", "text": "a", "annotations": []},
            {"type": "refusal", "refusal": "No."}]}],
         [{"role": "assistant", "content": "aNo."}]),
        ([{"type": "reasoning", "id": "rs_1", "summary": []}, CALL,
          {"type": "function_call_output", "call_id": "c1", "output": "1"}],
         [{"role": "assistant", "content": None, "tool_calls": [AS_CALL]},
          {"role": "tool", "tool_call_id": "c1", "content": "1"}]),
        ([{"role": "assistant", "content": "Look."}, CALL,
          {"type": "function_call_output", "call_id": "c1", "output": [IMAGE]}],
         [{"role": "assistant", "content": "Look.", "tool_calls": [AS_CALL]},
          {"role": "tool", "tool_call_id": "c1", "content": "(The result is in the next message.)"},
          {"role": "user", "content":
           [{"type": "text", "text": "From the result of the tool call c1:"}, AS_IMAGE]}]),
        ([{"role": "user", "content":
           [{"type": "input_file", "filename": "a.pdf", "file_data": "data:x"}]}],
         [{"role": "user", "content":
           [{"type": "file", "file": {"file_data": "data:x", "filename": "a.pdf"}}]}]),
    ],
)  # fmt: skip
def test_items_become_messages(items: Any, messages: list[Any]) -> None:
    request = asked(items)
    assert beyond_chat(request) == ""
    made = chat_request(request)
    assert (made.dialect, made.messages, made.input) == ("openai", messages, None)
    Request(messages=made.messages, params=made.params)  # it is one that is let in


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"max_output_tokens": 20, "temperature": 0, "top_p": 1, "user": "u"},
         {"max_completion_tokens": 20, "temperature": 0, "top_p": 1, "user": "u"}),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
         {"response_format": {"type": "json_object"}, "verbosity": "low"}),
        ({"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
         {"response_format": {"type": "json_schema",
                              "json_schema": {"name": "a", "schema": SCHEMA}}}),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
         {"tools": [AS_TOOL],
          "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ({"tools": [TOOL, OTHER], "tool_choice":
          {"type": "allowed_tools", "mode": "required",
           "tools": [{"type": "function", "name": "f"}]}},
         {"tools": [AS_TOOL], "tool_choice": "required"}),
        ({"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
         {"logprobs": True, "top_logprobs": 2}),
        ({"store": True, "metadata": {"a": "b"}, "parallel_tool_calls": True,
          "truncation": "disabled", "previous_response_id": None, "prompt_cache_key": "k",
          "include": ["reasoning.encrypted_content"], "max_tool_calls": 3}, {}),
    ],
)  # fmt: skip
def test_params_get_the_names_of_chat_completions(
    given: dict[str, Any], wanted: dict[str, Any]
) -> None:
    request = asked(**given)
    assert beyond_chat(request) == ""
    assert chat_request(request).params == wanted


def test_instructions_are_the_first_message() -> None:
    made = chat_request(Request(dialect="responses", prompt="Hi", params={"instructions": "Kind."}))
    assert made.chat() == [
        {"role": "system", "content": "Kind."}, {"role": "user", "content": "Hi"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "params", "lost"),
    [
        ("x", {"conversation": "conv_1"}, "params.conversation"),
        ("x", {"prompt": {"id": "p"}}, "params.prompt"),
        ("x", {"truncation": "auto"}, "params.truncation"),
        ("x", {"include": ["web_search_call.results"]}, "params.include"),
        ("x", {"reasoning": {"mode": "pro"}}, "params.reasoning"),
        ("x", {"tools": [TOOL, {"type": "custom", "name": "c"}]}, "params.tools[1]"),
        ("x", {"tools": [{**TOOL, "defer_loading": True}]}, "params.tools[0]"),
        ("x", {"tool_choice": {"type": "web_search"}}, "params.tool_choice"),
        ("x", {"text": {"format": {"type": "grammar"}}}, "params.text"),
        ([{"type": "custom_tool_call", "call_id": "c", "name": "n", "input": ""}], {}, "input[0]"),
        ([{"type": "compaction", "encrypted_content": "x"}], {}, "input[0]"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], {},
         "input[0].content[0]"),
        ([{**CALL, "namespace": "n"}], {}, "input[0].namespace"),
    ],
)  # fmt: skip
def test_what_a_chat_completion_has_nothing_like_is_named(
    given: Any, params: dict[str, Any], lost: str
) -> None:
    assert beyond_chat(asked(given, **params)) == lost


def test_what_is_only_looked_at_misses_nothing() -> None:
    request = asked(
        [{"role": "user", "content": "a"}, {"type": "compaction", "encrypted_content": "zzz"}],
        tools=[{"type": "web_search", "note": "yyy"}],
    )
    seen = readable(request)
    assert "zzz" in str(seen.messages)
    assert seen.params["tools"] == request.params["tools"]
    assert "zzz" not in str(chat_request(request).messages)


def test_another_form_stays_as_it_is() -> None:
    request = Request(prompt="x")
    assert chat_request(request) is readable(request) is request
