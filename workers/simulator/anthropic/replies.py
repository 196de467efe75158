"""Answers, streams and rate-limit headers in Anthropic's form."""

from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from time import gmtime, strftime

import orjson

from headgate.workers.simulator.answers import SimulatedAnswer, ToolCall, pieces
from headgate.workers.simulator.anthropic.errors import error_body, problem
from headgate.workers.simulator.billing import SimulatedUsage
from headgate.workers.simulator.limits import SimulatedBucket, SimulatedCharge, SimulatedPool
from headgate.workers.simulator.request import Json, SimulatedRequest

THOUGHT = "The question is short, so a short answer will do. Check it once more, then write it."


def charges(usage: SimulatedUsage) -> tuple[SimulatedCharge, ...]:
    """Return what the request takes from the buckets: input without cache reads, and output."""
    return (
        SimulatedCharge("requests", 1),
        SimulatedCharge("input-tokens", usage.input_tokens - usage.cached_tokens),
        SimulatedCharge("output-tokens", usage.output_tokens),
    )


def usage_of(usage: SimulatedUsage, thinking_tokens: int = 0) -> Json:
    """Return the usage block. `input_tokens` counts only what follows the last cache mark."""
    written = usage.write_5m_tokens + usage.write_1h_tokens
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.write_5m_tokens,
            "ephemeral_1h_input_tokens": usage.write_1h_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": thinking_tokens},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": "global",
    }


def reply(ask: SimulatedRequest, answer: SimulatedAnswer, usage: Json, answer_id: str) -> bytes:
    """Return the body of a message."""
    content = [whole for whole, _ in _blocks(answer)]
    return orjson.dumps(_message(ask, answer_id, content, answer, usage))


def events(
    ask: SimulatedRequest, answer: SimulatedAnswer, usage: Json, answer_id: str
) -> list[bytes]:
    """Return the server-sent events of a message, in order. The last usage is cumulative."""
    opening = {**_message(ask, answer_id, [], None, {**usage, "output_tokens": 1})}
    stream = [sse({"type": "message_start", "message": opening})]
    for place, (whole, deltas) in enumerate(_blocks(answer)):
        stream += _block_events(place, whole, deltas)
    delta = {
        "stop_reason": _stop_reason(answer),
        "stop_sequence": answer.stop_word,
        "stop_details": _stop_details(answer),
        "container": None,
    }
    last = {name: usage[name] for name in usage if "_tokens" in name or name == "server_tool_use"}
    stream.append(sse({"type": "message_delta", "delta": delta, "usage": last}))
    stream.append(sse({"type": "message_stop"}))
    return stream


def limit_headers(
    pool: SimulatedPool, now_epoch_s: float, of_bucket: bool = False
) -> dict[str, str]:
    """Return the anthropic-ratelimit headers.

    Resets are moments; tokens are rounded to the thousand. `of_bucket`: what remains is that of the
    bucket, not of the minute.
    """
    headers: dict[str, str] = {}
    for kind, bucket in pool.buckets.items():
        _describe(headers, kind, bucket, now_epoch_s, of_bucket)
    tokens = [bucket for kind, bucket in pool.buckets.items() if kind != "requests"]
    if tokens:
        tightest = min(tokens, key=lambda bucket: bucket.remaining(of_bucket))
        _describe(headers, "tokens", tightest, now_epoch_s, of_bucket)
    return headers


@lru_cache(maxsize=256)
def moment(epoch_s: int) -> str:
    """Return `epoch_s` as RFC 3339 in UTC, to the second."""
    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(epoch_s))


def sse(event: Json) -> bytes:
    """Return a server-sent event, named by its type."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event))


def error_event(status: int) -> bytes:
    """Return the event of an error that comes after a part of the answer."""
    return b"event: error\ndata: " + error_body(problem(str(status), ""), "") + b"\n\n"


def _describe(
    headers: dict[str, str], kind: str, bucket: SimulatedBucket, now_epoch_s: float, of_bucket: bool
) -> None:
    remaining = bucket.remaining(of_bucket)
    if kind != "requests":
        remaining = round(remaining, -3)
    headers[f"anthropic-ratelimit-{kind}-limit"] = str(bucket.per_minute)
    headers[f"anthropic-ratelimit-{kind}-remaining"] = str(remaining)
    reset = int(-(-(now_epoch_s + bucket.full_in_s()) // 1))
    headers[f"anthropic-ratelimit-{kind}-reset"] = moment(reset)


def _message(
    ask: SimulatedRequest,
    answer_id: str,
    content: list[Json],
    answer: SimulatedAnswer | None,
    usage: Json,
) -> Json:
    return {
        "id": answer_id,
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": _stop_reason(answer) if answer else None,
        "stop_sequence": answer.stop_word if answer else None,
        "stop_details": _stop_details(answer) if answer else None,
        "usage": usage,
        "container": None,
    }


def _blocks(answer: SimulatedAnswer) -> Iterator[tuple[Json, list[Json]]]:
    """Yield each block of the message, whole and as its deltas."""
    thinking = answer.thinking or (THOUGHT if answer.reasoning_tokens else "")
    if thinking:
        signature = b64encode(thinking[:24].encode()).decode()
        whole = {"type": "thinking", "thinking": thinking, "signature": signature}
        parts = pieces(thinking)
        deltas = [{"type": "thinking_delta", "thinking": part} for part in parts]
        yield whole, [*deltas, {"type": "signature_delta", "signature": signature}]
    if answer.text and not answer.calls:
        parts = pieces(answer.text)
        yield (
            {"type": "text", "text": answer.text, "citations": None},
            [{"type": "text_delta", "text": part} for part in parts],
        )
    for call in answer.calls:
        parts = pieces(call.arguments)
        yield (
            _tool_use(call),
            [{"type": "input_json_delta", "partial_json": part} for part in parts],
        )


def _tool_use(call: ToolCall) -> Json:
    try:
        arguments = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        # Cut by max_tokens: the vendor sends what could be parsed, the simulator nothing.
        arguments = {}
    return {
        "type": "tool_use",
        "id": f"toolu_{call.id}",
        "name": call.name,
        "input": arguments,
        "caller": {"type": "direct"},
    }


_EMPTY: Json = {"text": "", "thinking": "", "signature": "", "input": {}}
"""The fields of a block that come in its deltas, as they are at its start."""


def _block_events(place: int, whole: Json, deltas: list[Json]) -> list[bytes]:
    opened = {name: _EMPTY.get(name, value) for name, value in whole.items()}
    return [
        sse({"type": "content_block_start", "index": place, "content_block": opened}),
        *([] if place else [sse({"type": "ping"})]),
        *(sse({"type": "content_block_delta", "index": place, "delta": delta}) for delta in deltas),
        sse({"type": "content_block_stop", "index": place}),
    ]


def _stop_reason(answer: SimulatedAnswer) -> str:
    match answer.end:
        case "stop":
            return "end_turn" if answer.stop_word is None else "stop_sequence"
        case "length":
            return "max_tokens"
        case "tool":
            return "tool_use"
        case "filter":
            return "refusal"


def _stop_details(answer: SimulatedAnswer) -> Json | None:
    if answer.end != "filter":
        return None
    return {"type": "refusal", "category": None, "explanation": None}
