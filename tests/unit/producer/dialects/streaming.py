"""Streams of the translator, and what the official SDKs make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic
import httpx2
import openai
import orjson
from openai.lib.streaming.chat import ChatCompletionStreamState

from headgate.producer.dialects import anthropic as anthropic_dialect
from headgate.producer.dialects import openai as openai_dialect
from headgate.producer.dialects.streams import (
    EventKind,
    ServerEvent,
    StreamTranslator,
    translator,
)
from headgate.shared.job.request import Dialect
from headgate.shared.job.result import Result
from headgate.workers.providers.chat_parts import ChatParts
from headgate.workers.providers.message_parts import MessageParts
from tests.support.vendor_answers import Fields, VendorAnswer
from tests.unit.producer.dialects.answers import JOB, result_of

BEYOND_THE_SDK = (
    "tool_calls", "content in parts", "audio", "newer fields", "newer blocks", "reasoning_details",
)  # fmt: skip
"""Samples with parts that the SDKs cannot put together from a stream of any vendor's."""

Line = tuple[EventKind, bytes]


def stream_for(dialect: Dialect, *, include_usage: bool = True) -> StreamTranslator:
    """Return the translator of the samples' job."""
    return translator(dialect, job_id=JOB, model="asked", include_usage=include_usage)


def lines_of(sent: VendorAnswer) -> list[Line]:
    """Return the events of a vendor's stream as the worker hands them on: without pings."""
    kind: EventKind = "openai" if sent.dialect == "openai" else "anthropic"
    return [(kind, orjson.dumps(one)) for one in sent.events if one.get("type") != "ping"]


def streamed(
    dialect: Dialect, lines: Sequence[Line], result: Result, *, include_usage: bool = True
) -> list[ServerEvent]:
    """Return all events for these lines and their result."""
    one = stream_for(dialect, include_usage=include_usage)
    events = [event for line in lines for event in one.take(*line)]
    return events + one.end(result)


def read_by_sdk(dialect: Dialect, events: Sequence[ServerEvent]) -> Fields:
    """Return the answer that the official SDK puts together from the events."""
    content = b"".join(event.encoded(n) for n, event in enumerate(events))
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, content=content, headers=headers)
    )
    with httpx2.Client(transport=transport) as http:
        return _by_openai(http) if dialect == "openai" else _by_anthropic(http)


def _by_openai(http: httpx2.Client) -> Fields:
    client = openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=http, max_retries=0)
    state = ChatCompletionStreamState()
    with client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "x"}], stream=True
    ) as stream:
        for chunk in stream:
            state.handle_chunk(chunk)
    return state.current_completion_snapshot.to_dict(mode="json")


def _by_anthropic(http: httpx2.Client) -> Fields:
    client = anthropic.Anthropic(api_key="k", base_url="http://x", http_client=http, max_retries=0)
    with client.messages.stream(
        model="m", max_tokens=5, messages=[{"role": "user", "content": "x"}]
    ) as stream:
        found: Fields = stream.get_final_message().to_dict(mode="json")
        return found


def read_by_worker(dialect: Dialect, events: Sequence[ServerEvent]) -> Fields:
    """Return the answer that our own reader of vendors' streams puts together, field by field."""
    texts: list[str] = []
    parts = ChatParts(texts.append) if dialect == "openai" else MessageParts(texts.append)
    for event in events:
        if event.data != b"[DONE]":
            parts.take(orjson.loads(event.data))
    assert parts.ended
    return parts.whole()


def plain(dialect: Dialect, result: Result) -> Fields:
    """Return the whole answer as a caller of this dialect gets it without a stream."""
    if dialect == "openai":
        return openai_dialect.completion(result.as_json())
    return anthropic_dialect.message(result.as_json())


def comparable(body: Any) -> Any:
    """Return the body without nulls and empty texts, and with arguments as what they say.

    A null and a missing field mean the same in both dialects. Arguments that came from another
    vendor may be written with other blanks.
    """
    if isinstance(body, list):
        return [comparable(item) for item in body]
    if not isinstance(body, dict):
        return body
    fields = {name: comparable(value) for name, value in body.items()}
    if isinstance(fields.get("arguments"), str):
        fields["arguments"] = orjson.loads(fields["arguments"] or "{}")
    empty: tuple[object, ...] = (None, "", [], {})
    return {
        name: value
        for name, value in fields.items()
        if value not in empty and name not in ("index", "parsed", "parsed_arguments", "object")
    }


def differences(
    dialect: Dialect, events: Sequence[ServerEvent], sent: VendorAnswer
) -> list[Fields]:
    """Return what the SDK and our reader find in the stream, if it is not the whole answer."""
    found = [comparable(read_by_worker(dialect, events))]
    if sent.feature not in BEYOND_THE_SDK:
        found.append(comparable(read_by_sdk(dialect, events)))
    whole = comparable(plain(dialect, result_of(sent)))
    return [made for made in found if made != whole]
