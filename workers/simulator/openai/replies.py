"""OpenAI's forms: requests read, answers, streams, errors and rate-limit headers written."""

from base64 import b64encode
from typing import Any

import orjson

from headgate.workers.simulator.answers import SimulatedAnswer, pieces, vector
from headgate.workers.simulator.limits import SimulatedCharge, SimulatedPool
from headgate.workers.simulator.openai import errors
from headgate.workers.simulator.request import Json, SimulatedRequest

FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter"}

error_body = errors.error_body
problem = errors.problem


def charges(ask: SimulatedRequest, input_tokens: int) -> tuple[SimulatedCharge, ...]:
    """What arrives on the buckets: the larger of the budget and the estimate with it."""
    budget = (ask.max_tokens or 0) * ask.choices
    return SimulatedCharge("requests", 1), SimulatedCharge(
        "tokens", max(budget, input_tokens + budget)
    )


def reply(
    ask: SimulatedRequest, answers: list[SimulatedAnswer], usage: Json, answer_id: str, created: int
) -> bytes:
    """The body of a chat completion."""
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
            "system_fingerprint": "fp_simulated",
        }
    )


def events(
    ask: SimulatedRequest, answers: list[SimulatedAnswer], usage: Json, answer_id: str, created: int
) -> list[bytes]:
    """The server-sent events of a chat completion, in order, `[DONE]` included."""
    head = {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": ask.model,
        "service_tier": _tier(ask),
        "system_fingerprint": "fp_simulated",
    }
    # With include_usage every chunk but the last says null; without it the field is absent.
    tail: Json = {"usage": None} if ask.include_usage else {}

    def chunk(place: int, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": place, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse({**head, "choices": [choice], **tail})

    stream: list[bytes] = []
    for place, answer in enumerate(answers):
        if answer.tool_call is None:
            stream.append(chunk(place, {"role": "assistant", "content": "", "refusal": None}))
            stream += [chunk(place, {"content": part}) for part in pieces(answer.text)]
        else:
            call = answer.tool_call
            opened = {
                "index": 0,
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }
            first = {"role": "assistant", "content": None, "tool_calls": [opened]}
            stream.append(chunk(place, first))
            for part in pieces(call.arguments):
                more = {"index": 0, "function": {"arguments": part}}
                stream.append(chunk(place, {"tool_calls": [more]}))
        stream.append(chunk(place, {}, FINISH[answer.end]))
    if ask.include_usage:
        stream.append(sse({**head, "choices": [], "usage": usage}))
    stream.append(b"data: [DONE]\n\n")
    return stream


def embeddings_reply(ask: SimulatedRequest, input_tokens: int) -> bytes:
    """The body of an embeddings answer, vectors as numbers or base64 of 32-bit floats."""
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
    """The usage block: the prompt includes what was cached, the completion its reasoning."""
    spoken = sum(answer.output_tokens for answer in answers)
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": spoken,
        "total_tokens": input_tokens + spoken,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(answer.reasoning_tokens for answer in answers),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def limit_headers(pool: SimulatedPool) -> dict[str, str]:
    """The x-ratelimit headers; a limit that is not set has none. Resets are durations."""
    headers: dict[str, str] = {}
    for kind, bucket in pool.buckets.items():
        headers[f"x-ratelimit-limit-{kind}"] = str(bucket.per_minute)
        headers[f"x-ratelimit-remaining-{kind}"] = str(bucket.remaining())
        headers[f"x-ratelimit-reset-{kind}"] = duration(bucket.full_in_s())
    return headers


def duration(seconds: float) -> str:
    """`seconds` in OpenAI's words: 120ms, 1s, 1.5s, 6m0s, 1h0m0s."""
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
    """One server-sent event without a name."""
    return b"data: " + orjson.dumps(event) + b"\n\n"


def error_event(status: int) -> bytes:
    """The event that tells of an error after output was already delivered."""
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
    if answer.tool_call is not None:
        call = answer.tool_call
        message["tool_calls"] = [
            {
                "id": f"call_{call.id}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
        ]
    return message
