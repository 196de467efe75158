"""Answers, streams and rate-limit headers in OpenAI's form."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import orjson

from headgate.workers.simulator.answers import SimulatedAnswer, pieces, vector
from headgate.workers.simulator.limits import SimulatedCharge, SimulatedPool
from headgate.workers.simulator.openai.errors import error_body, problem
from headgate.workers.simulator.request import Json, SimulatedRequest

FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter"}


def charges(ask: SimulatedRequest, input_tokens: int) -> tuple[SimulatedCharge, ...]:
    """Return what the request takes from the buckets: the input and all of `max_tokens`."""
    output_tokens = (ask.max_tokens or 0) * ask.choices
    return SimulatedCharge("requests", 1), SimulatedCharge("tokens", input_tokens + output_tokens)


def reply(
    ask: SimulatedRequest, answers: list[SimulatedAnswer], usage: Json, answer_id: str, created: int
) -> bytes:
    """Return the body of a chat completion."""
    return orjson.dumps(
        {
            "id": answer_id,
            "object": "chat.completion",
            "created": created,
            "model": ask.model,
            "choices": [
                {
                    "index": place,
                    "message": _message(answer),
                    "logprobs": None,
                    "finish_reason": FINISH[answer.end],
                }
                for place, answer in enumerate(answers)
            ],
            "usage": usage,
            "service_tier": _tier(ask),
            "system_fingerprint": "fp_50cad350e4",
        }
    )


def events(
    ask: SimulatedRequest, answers: list[SimulatedAnswer], usage: Json, answer_id: str, created: int
) -> list[bytes]:
    """Return the server-sent events of a chat completion, in order, with `[DONE]`."""
    head = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": ask.model,
        "service_tier": _tier(ask),
        "system_fingerprint": "fp_50cad350e4",
    }
    # With include_usage, `usage` is null in every chunk but the last; without, it is absent.
    tail: Json = {"usage": None} if ask.include_usage else {}

    def chunk(place: int, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": place, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**head, "choices": [choice], **tail})

    stream: list[bytes] = []
    for place, answer in enumerate(answers):
        stream += [chunk(place, delta) for delta in _deltas(answer)]
        stream.append(chunk(place, {}, FINISH[answer.end]))
    if ask.include_usage:
        stream.append(sse({**head, "choices": [], "usage": usage}))
    stream.append(b"data: [DONE]\n\n")
    return stream


def _deltas(answer: SimulatedAnswer) -> Iterator[Json]:
    """Yield the deltas of one choice: its role first, then its text or its tool calls in pieces."""
    if answer.thinking:  # as DeepSeek sends it
        yield {"role": "assistant", "content": None, "reasoning_content": ""}
        for part in pieces(answer.thinking):
            yield {"content": None, "reasoning_content": part}
    if not answer.calls:
        if not answer.thinking:
            yield {"role": "assistant", "content": "", "refusal": None}
        for part in pieces(answer.text):
            yield {"content": part}
    for place, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        opened = {"index": place, "id": f"call_{call.id}", "type": "function", "function": function}
        head: Json = {"role": "assistant", "content": None, "refusal": None}
        if place or answer.thinking:
            head = {}
        yield {**head, "tool_calls": [opened]}
        for part in pieces(call.arguments):
            yield {"tool_calls": [{"index": place, "function": {"arguments": part}}]}


def embeddings_reply(ask: SimulatedRequest, input_tokens: int) -> bytes:
    """Return the body of an embeddings answer, vectors as numbers or base64 of 32-bit floats."""
    vectors: list[Any] = []
    for text in ask.inputs:
        places = vector(text, ask.dimensions)
        vectors.append(b64encode(places).decode() if ask.base64 else places.tolist())
    return orjson.dumps(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": place, "embedding": one}
                for place, one in enumerate(vectors)
            ],
            "model": ask.model,
            "usage": {"prompt_tokens": input_tokens, "total_tokens": input_tokens},
        }
    )


def usage_of(answers: list[SimulatedAnswer], input_tokens: int, cached_tokens: int) -> Json:
    """Return the usage block. Prompt tokens include cached ones, completion tokens reasoning."""
    output_tokens = sum(answer.output_tokens for answer in answers)
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(answer.reasoning_tokens for answer in answers),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def limit_headers(pool: SimulatedPool, of_bucket: bool = False) -> dict[str, str]:
    """Return the x-ratelimit headers of the limits that are set. Resets are durations.

    `of_bucket`: what remains is that of the bucket, not of the minute.
    """
    headers: dict[str, str] = {}
    for kind, bucket in pool.buckets.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
        headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining(of_bucket))
        headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.full_in_s())
    return headers


def duration(seconds: float) -> str:
    """Return `seconds` in OpenAI's form: 120ms, 1s, 1.5s, 6m0s, 1h0m0s."""
    ms = max(0, round(seconds * 1000))
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    last = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return last
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{last}" if hours else f"{minutes}m{last}"


def sse(event: Json) -> bytes:
    """Return a server-sent event without a name."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def error_event(status: int) -> bytes:
    """Return the event of an error that comes after a part of the answer."""
    return b"data: " + error_body(problem(str(status), ""), "") + b"\n\n"


def _tier(ask: SimulatedRequest) -> str:
    return "flex" if ask.flex else "default"


def _message(answer: SimulatedAnswer) -> Json:
    message: Json = {
        "role": "assistant",
        "content": None if answer.tool_call else answer.text,
        "refusal": None,
        "annotations": [],
    }
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    return message
