"""What vendors answer, feature by feature: each answer whole, and as the events of its stream.

The forms are those of the vendors' API references. Where a stream differs from the whole answer
by design, such as in its `object`, the events follow the vendor.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.recording_provider import GivenAnswer, anthropic_events

Fields = dict[str, Any]


@dataclass(frozen=True)
class VendorAnswer:
    """One answer: the feature that it shows, its dialect, its body, and its events.

    `content` and `finish_reason`: those of the result.
    """

    feature: str
    dialect: str
    body: Fields
    events: Sequence[Mapping[str, Any]]
    content: str | None
    finish_reason: str = "stop"

    def given(self, chunk: int = 0) -> GivenAnswer:
        """Return the answer for a recording provider; `chunk` cuts its stream."""
        if self.dialect == "anthropic":
            return GivenAnswer(self.body, anthropic_events(*self.events), chunk=chunk)
        return GivenAnswer(self.body, [*self.events, "[DONE]"], chunk=chunk)


HEAD: Fields = {
    "id": "chatcmpl-B9MB",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-4o-mini-2024-07-18",
}
USAGE: Fields = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 2,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 3,
        "rejected_prediction_tokens": 1,
    },
}
TAIL: Fields = {"service_tier": "default", "system_fingerprint": "fp_44709d6fcb"}


def choice(message: Fields, finish: str = "stop", index: int = 0, **more: Any) -> Fields:
    """Return one choice of a chat completion."""
    message = {"role": "assistant", "content": None, **message}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish, **more}


def completion(*choices: Fields, **more: Any) -> Fields:
    """Return a chat completion."""
    return {**HEAD, "choices": list(choices), "usage": USAGE, **TAIL, **more}


def chunk(delta: Fields | None = None, *, index: int = 0, **more: Any) -> Fields:
    """Return one chunk of a chat completion. `more`: fields of the choice."""
    one = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": None, **more}
    head = {**HEAD, "object": "chat.completion.chunk", **TAIL}
    return {**head, "choices": [one], "usage": None, "obfuscation": "xK3"}


def ending(finish: str = "stop", *, more: Fields | None = None) -> list[Fields]:
    """Return the end of a stream: the finish, then the usage. `more`: fields of the completion."""
    usage = {**HEAD, "object": "chat.completion.chunk", **TAIL, "choices": [], "usage": USAGE}
    return [chunk(finish_reason=finish), {**usage, **(more or {})}]


def token(text: str, logprob: float) -> Fields:
    """Return the log probability of one token."""
    top = [{"token": text, "logprob": logprob, "bytes": [*text.encode()]}]
    return {"token": text, "logprob": logprob, "bytes": [*text.encode()], "top_logprobs": top}


def _logprobs() -> VendorAnswer:
    tokens = [token("Hi", -0.31), token("!", -1e-06)]
    body = completion(choice({"content": "Hi!"}, logprobs={"content": tokens, "refusal": None}))
    events = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hi"}, logprobs={"content": tokens[:1], "refusal": None}),
        chunk({"content": "!"}, logprobs={"content": tokens[1:], "refusal": None}),
        *ending(),
    ]
    return VendorAnswer("logprobs", "openai", body, events, "Hi!")


def _audio() -> VendorAnswer:
    # Each piece is base64 of its own, with padding; the whole is base64 of all the bytes.
    sound = [b"RIFF0", b"WAVE data", b"!"]
    spoken = ["Hel", "lo"]
    audio = {
        "id": "audio_abc",
        "data": base64.b64encode(b"".join(sound)).decode(),
        "transcript": "Hello",
        "expires_at": 1741573552,
    }
    body = completion(choice({"audio": audio, "refusal": None, "annotations": []}))
    pieces = [{"data": base64.b64encode(part).decode()} for part in sound]
    events = [
        chunk({"role": "assistant", "content": None, "refusal": None, "annotations": []}),
        chunk({"audio": {"id": "audio_abc", **pieces[0]}}),
        *(chunk({"audio": {"transcript": part}}) for part in spoken),
        *(chunk({"audio": piece}) for piece in pieces[1:]),
        chunk({"audio": {"expires_at": 1741573552}}),
        *ending(),
    ]
    return VendorAnswer("audio", "openai", body, events, None)


def _function_call() -> VendorAnswer:
    called = {"name": "find", "arguments": '{"q": "x"}'}
    body = completion(choice({"function_call": called}, "function_call"))
    events = [
        chunk({"role": "assistant", "content": None, "function_call": {**called, "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"q"'}}),
        chunk({"function_call": {"arguments": ': "x"}'}}),
        *ending("function_call"),
    ]
    return VendorAnswer("function_call", "openai", body, events, None, "function_call")


def _annotations() -> VendorAnswer:
    cited = {"start_index": 0, "end_index": 4, "url": "https://example.com/?a=1", "title": "News"}
    notes = [{"type": "url_citation", "url_citation": cited}]
    body = completion(choice({"content": "News", "refusal": None, "annotations": notes}))
    events = [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "News"}),
        chunk({"annotations": notes}),
        *ending(),
    ]
    return VendorAnswer("annotations", "openai", body, events, "News")


def _reasoning() -> VendorAnswer:
    body = completion(choice({"content": "4", "reasoning_content": "2 and 2"}))
    events = [
        chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
        chunk({"content": None, "reasoning_content": "2 and"}),
        chunk({"content": None, "reasoning_content": " 2"}),
        chunk({"content": "4", "reasoning_content": None}),
        *ending(),
    ]
    return VendorAnswer("reasoning_content", "openai", body, events, "4")


def _reasoning_details() -> VendorAnswer:
    thought = {"type": "reasoning.text", "text": "2 and 2", "format": "anthropic-claude-v1",
               "index": 0, "signature": "sig=="}  # fmt: skip
    hidden = {"type": "reasoning.encrypted", "data": "abc", "format": "x", "index": 1}
    message = {"content": "4", "reasoning": "2 and 2", "reasoning_details": [thought, hidden]}
    body = completion(choice(message))
    first = {k: v for k, v in thought.items() if k != "signature"} | {"text": "2 and"}
    rest = {**first, "text": " 2"}
    signed = {"type": "reasoning.text", "signature": "sig==", "index": 0}
    events = [
        chunk({"role": "assistant", "content": "", "reasoning": "2 and",
               "reasoning_details": [first]}),
        chunk({"role": "assistant", "content": "", "reasoning": " 2", "reasoning_details": [rest]}),
        chunk({"role": "assistant", "content": "", "reasoning_details": [signed, hidden]}),
        chunk({"role": "assistant", "content": "4"}),
        *ending(),
    ]  # fmt: skip
    return VendorAnswer("reasoning_details", "openai", body, events, "4")


def _refusal() -> VendorAnswer:
    body = completion(choice({"refusal": "I cannot help."}))
    events = [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I cannot"}),
        chunk({"refusal": " help."}),
        *ending(),
    ]
    return VendorAnswer("refusal", "openai", body, events, None)


def _choices() -> VendorAnswer:
    body = completion(
        choice({"content": "one"}),
        choice({"content": "two"}, "length", index=1),
        choice({"content": "three"}, index=2),
    )
    events = [
        chunk({"role": "assistant", "content": "on"}),
        chunk({"content": "e"}),
        chunk({"role": "assistant", "content": "t"}, index=1),
        chunk({"role": "assistant", "content": "three"}, index=2),
        chunk(finish_reason="stop"),
        chunk({"content": "wo"}, index=1),
        chunk(index=1, finish_reason="length"),
        chunk(index=2, finish_reason="stop"),
        {**ending()[1]},
    ]
    return VendorAnswer("several choices", "openai", body, events, "one")


def _tool_calls() -> VendorAnswer:
    mark = {"google": {"thought_signature": "c2ln"}}
    found = {"name": "find", "arguments": '{"q": 1}'}
    calls = [
        {"id": "c1", "type": "function", "function": found, "extra_content": mark},
        {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}},
    ]
    body = completion(choice({"tool_calls": calls}, "tool_calls"))
    first = {**calls[0], "function": {"name": "find", "arguments": ""}}
    second = {**calls[1], "custom": {"name": "sql", "input": ""}}
    events = [
        chunk({"role": "assistant", "content": None, "tool_calls": [{"index": 0, **first}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"q": 1'}}]}),
        chunk({"tool_calls": [{"index": 1, **second}]}),
        chunk({"tool_calls": [{"index": 1, "custom": {"input": "select"}},
                              {"index": 0, "function": {"arguments": "}"}}]}),
        chunk({"tool_calls": [{"index": 1, "custom": {"input": " 1"}}]}),
        *ending("tool_calls"),
    ]  # fmt: skip
    return VendorAnswer("tool_calls", "openai", body, events, None, "tool_calls")


def _thinking_parts() -> VendorAnswer:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "2 and 2"}]}
    body = completion(choice({"content": [thought, {"type": "text", "text": "It is 4"}]}))
    piece = {"type": "thinking", "thinking": [{"type": "text", "text": "2 and"}]}
    rest = {"type": "thinking", "thinking": [{"type": "text", "text": " 2"}]}
    events = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": [piece]}),
        chunk({"content": [rest]}),
        chunk({"content": "It is"}),
        chunk({"content": " 4"}),
        *ending(),
    ]
    return VendorAnswer("content in parts", "openai", body, events, "It is 4")


def _newer() -> VendorAnswer:
    """Fields that nobody knows yet, at each level."""
    safe = {"hate": {"filtered": False, "severity": "safe"}}
    message = {"content": "Hi!", "mood": {"words": "calm", "score": 0.5}, "notes": [1, "b"]}
    one = choice(message, content_filter_results=safe, token_ids=[7, 8])
    sources = [{"url": "https://example.com", "rank": 1}]
    body = completion(one, search_results=sources, x_new={"a": None, "b": [[]]}, empty={})
    new = {"search_results": sources, "x_new": {"a": None, "b": [[]]}, "empty": {}}
    events = [
        {**chunk({"role": "assistant", "content": "Hi", "mood": {"words": "ca"}, "notes": [1]},
                 content_filter_results=safe, token_ids=[7]), **new},
        {**chunk({"content": "!", "mood": {"words": "lm", "score": 0.5}, "notes": ["b"]},
                 content_filter_results=safe, token_ids=[8]), **new},
        *ending(more=new),
    ]  # fmt: skip
    return VendorAnswer("newer fields", "openai", body, events, "Hi!")


def message(blocks: Sequence[Fields], reason: str = "end_turn", **more: Any) -> Fields:
    """Return a message of Anthropic's."""
    return {
        "id": "msg_01X",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": list(blocks),
        "stop_reason": reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 12,
            "cache_creation_input_tokens": 5,
            "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 30,
            "service_tier": "standard",
            "inference_geo": "global",
        },
        **more,
    }


def message_events(whole: Fields, *blocks: Sequence[Fields], **more: Any) -> list[Fields]:
    """Return the events of a message. Each block: its start, then its deltas.

    `more`: fields that come with the end of the message.
    """
    usage = whole["usage"]
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[Fields] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for index, (start, *deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    reason = {"stop_reason": whole["stop_reason"], "stop_sequence": None, **more.pop("delta", {})}
    last = {"output_tokens": usage["output_tokens"]}
    events.append({"type": "message_delta", "delta": reason, "usage": last, **more})
    return [*events, {"type": "message_stop"}]


def delta(kind: str, **fields: Any) -> Fields:
    """Return a delta of this type."""
    return {"type": kind, **fields}


def _thinking() -> VendorAnswer:
    thought = {"type": "thinking", "thinking": "Let me see.", "signature": "EqQBCkgIAxAB=="}
    hidden = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4a"}
    used = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"q": "x", "n": 3}}
    whole = message([thought, hidden, used], "tool_use")
    events = message_events(
        whole,
        [
            {**thought, "thinking": "", "signature": ""},
            delta("thinking_delta", thinking="Let me"),
            delta("thinking_delta", thinking=" see.", estimated_tokens=50),
            delta("signature_delta", signature=thought["signature"]),
        ],
        [hidden],
        [
            {**used, "input": {}},
            delta("input_json_delta", partial_json=""),
            delta("input_json_delta", partial_json='{"q": "x",'),
            delta("input_json_delta", partial_json=' "n": 3}'),
        ],
    )
    return VendorAnswer("thinking blocks", "anthropic", whole, events, None, "tool_calls")


def _citations() -> VendorAnswer:
    cited = [
        {"type": "char_location", "cited_text": "grass is green", "document_index": 0,
         "document_title": "Facts", "start_char_index": 0, "end_char_index": 14},
        {"type": "page_location", "cited_text": "sky", "document_index": 1,
         "document_title": None, "start_page_number": 1, "end_page_number": 2},
    ]  # fmt: skip
    blocks: list[Fields] = [
        {"type": "text", "text": "Grass is "},
        {"type": "text", "text": "green.", "citations": cited},
    ]
    whole = message(blocks)
    events = message_events(
        whole,
        [{"type": "text", "text": ""}, delta("text_delta", text="Grass is ")],
        [
            {"type": "text", "text": "", "citations": []},
            delta("citations_delta", citation=cited[0]),
            delta("text_delta", text="gre"),
            delta("citations_delta", citation=cited[1]),
            delta("text_delta", text="en."),
        ],
    )
    return VendorAnswer("citations", "anthropic", whole, events, "Grass is green.")


def _server_tools(reason: str, feature: str, finish: str) -> VendorAnswer:
    searched = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search",
                "input": {"query": "news"}, "caller": {"type": "direct"}}  # fmt: skip
    hit = {"type": "web_search_result", "url": "https://example.com", "title": "News",
           "encrypted_content": "EqgfCioIARgBIiQ3YTAw", "page_age": "1 day"}  # fmt: skip
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [hit]}
    whole = message([{"type": "text", "text": "I search."}, searched, found], reason)
    whole["usage"] |= {"server_tool_use": {"web_search_requests": 1}}
    events = message_events(
        whole,
        [{"type": "text", "text": ""}, delta("text_delta", text="I search.")],
        [
            {**searched, "input": {}},
            delta("input_json_delta", partial_json='{"query"'),
            delta("input_json_delta", partial_json=': "news"}'),
        ],
        [found],
    )
    return VendorAnswer(feature, "anthropic", whole, events, "I search.", finish)


def _stopped() -> VendorAnswer:
    details = {"type": "refusal", "category": "cyber", "explanation": "It is not allowed."}
    whole = message([], "refusal", stop_details=details)
    events = message_events(
        {**whole, "stop_details": None},
        delta={"stop_details": details},
    )
    events[0]["message"]["stop_details"] = None
    return VendorAnswer("refusal by its filter", "anthropic", whole, events, "", "content_filter")


def _new_blocks() -> VendorAnswer:
    """Blocks, deltas and fields that are newer than we are."""
    compact = {"type": "compaction", "content": "We spoke.", "encrypted_content": "abc="}
    strange = {"type": "hologram", "shape": {"sides": 3, "name": "cone"}, "light": "red green"}
    managed = {"applied_edits": [{"type": "clear_thinking", "cleared_input_tokens": 5}]}
    held = {"id": "container_1", "expires_at": "2026-11-30T00:00:00Z"}
    whole = message([compact, strange, {"type": "text", "text": "Hi"}], container=held,
                    context_management=managed)  # fmt: skip
    events = message_events(
        {**whole, "container": None, "context_management": None},
        [
            {"type": "compaction", "content": None, "encrypted_content": None},
            delta("compaction_delta", content="We spoke.", encrypted_content="abc="),
        ],
        [
            {"type": "hologram", "shape": {"name": "cone"}},
            delta("light_delta", light="red"),
            delta("light_delta", light=" green"),
            delta("shape_delta", shape={"sides": 3}),
        ],
        [{"type": "text", "text": "Hi"}],
        delta={"container": held},
        context_management=managed,
    )
    return VendorAnswer("newer blocks", "anthropic", whole, events, "Hi")


VENDOR_ANSWERS = (
    _logprobs(), _audio(), _function_call(), _annotations(), _reasoning(), _reasoning_details(),
    _refusal(), _choices(), _tool_calls(), _thinking_parts(), _newer(), _thinking(), _citations(),
    _server_tools("end_turn", "server tools", "stop"),
    _server_tools("pause_turn", "pause_turn", "pause_turn"), _stopped(), _new_blocks(),
)  # fmt: skip
