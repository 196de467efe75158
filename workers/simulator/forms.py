"""Puts a simulated answer into the form of its address: whole, or as server-sent events."""

from dataclasses import dataclass

import orjson

from headgate.workers.simulator.answers import SimulatedAnswer
from headgate.workers.simulator.anthropic import replies as anthropic_replies
from headgate.workers.simulator.behaviour import Act
from headgate.workers.simulator.billing import SimulatedUsage
from headgate.workers.simulator.openai import moderations as openai_moderations
from headgate.workers.simulator.openai import replies as openai_replies
from headgate.workers.simulator.request import SimulatedRequest
from headgate.workers.simulator.responses import replies as responses_replies
from headgate.workers.simulator.responses.record import SimulatedRecord

CHAT, EMBEDDINGS, MESSAGES = "/v1/chat/completions", "/v1/embeddings", "/v1/messages"
RESPONSES, MODERATIONS = "/v1/responses", "/v1/moderations"


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer before it is put into the vendor's form, and the prefixes to remember then."""

    ask: SimulatedRequest
    answers: list[SimulatedAnswer]
    usage: SimulatedUsage
    prefixes: list[bytes]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The new id of an answer, the second in which it is made, and the key of its caller."""

    id: str
    now_s: int
    key: str


def fill(
    act: Act, path: str, draft: Draft, usage: SimulatedUsage, stamp: Stamp, record: SimulatedRecord
) -> None:
    """Set the body or the events of the act. `usage` is what the answer reports."""
    ask, answers = draft.ask, draft.answers
    if path == EMBEDDINGS:
        act.body = openai_replies.embeddings_reply(ask, usage.input_tokens)
    elif path == MODERATIONS:
        act.body = openai_moderations.reply(ask, f"modr-{stamp.id}")
    elif path == CHAT:
        block = openai_replies.usage_of(answers, usage.input_tokens, usage.cached_tokens)
        answer_id = f"chatcmpl-{stamp.id}"
        if ask.stream:
            act.events = openai_replies.events(ask, answers, block, answer_id, stamp.now_s)
        else:
            act.body = openai_replies.reply(ask, answers, block, answer_id, stamp.now_s)
    elif path == RESPONSES:
        block = responses_replies.usage_of(answers, usage.input_tokens, usage.cached_tokens)
        response = responses_replies.SimulatedResponse(
            f"resp_{stamp.id}", stamp.now_s, ask, answers[0] if answers else None, block
        )
        record.keep(stamp.key, response)
        if ask.stream:
            act.events = responses_replies.events(response)
        else:
            act.body = orjson.dumps(response.whole())
    else:
        block = anthropic_replies.usage_of(usage, answers[0].reasoning_tokens)
        answer_id = f"msg_{stamp.id}"
        if ask.stream:
            act.events = anthropic_replies.events(ask, answers[0], block, answer_id)
        else:
            act.body = anthropic_replies.reply(ask, answers[0], block, answer_id)


def broken(path: str, events: list[bytes]) -> list[bytes]:
    """Return the first half of the events, and an error in the place of the others."""
    half = events[: len(events) // 2]
    if path == RESPONSES:
        return [*half, responses_replies.error_event(len(half))]
    if path == MESSAGES:
        return [*half, anthropic_replies.error_event(529)]
    return [*half, openai_replies.error_event(500)]
