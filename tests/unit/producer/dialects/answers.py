"""Answers of vendors as results of jobs, and more sample answers than `vendor_answers` has."""

from __future__ import annotations

from typing import Any

import orjson

from headgate.producer.dialects.usage import read_anthropic, read_openai
from headgate.shared.job.result import Result
from tests.support.vendor_answers import (
    VENDOR_ANSWERS,
    Fields,
    VendorAnswer,
    choice,
    chunk,
    completion,
    delta,
    ending,
    message,
    message_events,
)

JOB = "019aa000-0000-7000-8000-000000000000"
"""The id of the job of every sample. It was made in the Unix second 1763620945."""


def result_of(sent: VendorAnswer, **more: Any) -> Result:
    """Return the result of a job that this vendor answered, as the worker writes it."""
    read = read_openai if sent.dialect == "openai" else read_anthropic
    fields: dict[str, Any] = {
        "id": JOB, "status": "succeeded", "model": "asked", "model_used": "used",
        "content": sent.content, "finish_reason": sent.finish_reason, "message": sent.body,
        "tool_calls": calls_of(sent), "usage": read(sent.body.get("usage")),
    }  # fmt: skip
    return Result(**fields | more)


def calls_of(sent: VendorAnswer) -> list[Fields] | None:
    """Return the tool calls of an answer in OpenAI's form, as the worker reads them."""
    if sent.dialect == "openai":
        return sent.body["choices"][0]["message"].get("tool_calls") or None
    blocks = [block for block in sent.body["content"] if block["type"] == "tool_use"]
    return [
        {"id": block["id"], "type": "function",
         "function": {"name": block["name"], "arguments": orjson.dumps(block["input"]).decode()}}
        for block in blocks
    ] or None  # fmt: skip


def _text() -> VendorAnswer:
    body = completion(choice({"content": "Hello, world. \u00fc \U0001f600", "refusal": None}))
    events = [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hello, "}),
        chunk({"content": "world. \u00fc \U0001f600"}),
        *ending(),
    ]
    text = "Hello, world. \u00fc \U0001f600"
    return VendorAnswer("text of OpenAI", "openai", body, events, text)


def _parallel() -> VendorAnswer:
    calls = [
        {"id": f"call_{n}", "type": "function",
         "function": {"name": name, "arguments": f'{{"q":"{name}"}}'}}
        for n, name in enumerate(("find", "sum"))
    ]  # fmt: skip
    body = completion(choice({"content": "I look.", "tool_calls": calls}, "tool_calls"))
    events = [chunk({"role": "assistant", "content": ""}), chunk({"content": "I look."})]
    for n, call in enumerate(calls):
        function = call["function"]
        assert isinstance(function, dict)
        first = {**call, "index": n, "function": {**function, "arguments": ""}}
        events.append(chunk({"tool_calls": [first]}))
        written = str(function["arguments"])
        events += [
            chunk({"tool_calls": [{"index": n, "function": {"arguments": piece}}]})
            for piece in (written[:4], written[4:])
        ]
    return VendorAnswer(
        "two calls of OpenAI", "openai", body, [*events, *ending("tool_calls")], "I look.",
        "tool_calls",
    )  # fmt: skip


def _empty() -> VendorAnswer:
    body = completion(choice({"content": ""}, "length"))
    events = [chunk({"role": "assistant", "content": ""}), *ending("length")]
    return VendorAnswer("no text of OpenAI", "openai", body, events, "", "length")


def _claude() -> VendorAnswer:
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQB=="}
    said = {"type": "text", "text": "It is 4."}
    used = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": name, "input": {"q": name}}
        for n, name in enumerate(("find", "sum"))
    ]
    whole = message([thought, said, *used], "tool_use")
    whole["usage"] |= {
        "cache_read_input_tokens": 7, "output_tokens_details": {"thinking_tokens": 11},
    }  # fmt: skip
    events = message_events(
        whole,
        [
            {**thought, "thinking": "", "signature": ""},
            delta("thinking_delta", thinking="Let me"),
            delta("thinking_delta", thinking=" see."),
            delta("signature_delta", signature="EqQB=="),
        ],
        [{**said, "text": ""}, delta("text_delta", text="It "), delta("text_delta", text="is 4.")],
        *(
            [
                {**block, "input": {}},
                delta("input_json_delta", partial_json=""),
                delta("input_json_delta", partial_json='{"q":'),
                delta("input_json_delta", partial_json=f'"{block["name"]}"}}'),
            ]
            for block in used
        ),
    )
    return VendorAnswer(
        "thinking, text and two calls of Anthropic", "anthropic", whole, events, "It is 4.",
        "tool_calls",
    )  # fmt: skip


def _nothing() -> VendorAnswer:
    whole = message([])
    return VendorAnswer("no text of Anthropic", "anthropic", whole, message_events(whole), "")


def _cut() -> VendorAnswer:
    said = {"type": "text", "text": "It is"}
    whole = message([said], "max_tokens")
    events = message_events(whole, [{**said, "text": ""}, delta("text_delta", text="It is")])
    return VendorAnswer("cut text of Anthropic", "anthropic", whole, events, "It is", "length")


def _web() -> VendorAnswer:
    cited = {
        "type": "web_search_result_location", "url": "https://example.com/news", "title": "News",
        "encrypted_index": "Eo8B", "cited_text": "It rains.",
    }  # fmt: skip
    blocks: list[Fields] = [
        {"type": "text", "text": "I read: "},
        {"type": "text", "text": "it rains.", "citations": [cited]},
    ]
    whole = message(blocks)
    events = message_events(
        whole,
        [{"type": "text", "text": ""}, delta("text_delta", text="I read: ")],
        [
            {"type": "text", "text": "", "citations": []},
            delta("citations_delta", citation=cited),
            delta("text_delta", text="it "),
            delta("text_delta", text="rains."),
        ],
    )
    return VendorAnswer("a cited web page", "anthropic", whole, events, "I read: it rains.")


ANSWERS = (
    *VENDOR_ANSWERS, _text(), _parallel(), _empty(), _claude(), _nothing(), _cut(), _web(),
)  # fmt: skip
"""Answers of both vendors, with the events of their streams."""

STATIC = Result(
    JOB, "succeeded", "asked", content="Come back later.", model_used="static", finish_reason="stop"
)
"""The fixed answer at the end of a fallback chain: no vendor was asked."""
