"""Moderations: reads the verdicts of a vendor, and makes those of an operator's own function.

Both have the form of OpenAI's moderation object. Vendors send no usage with it, or the tokens of
the input only: without one the estimate of the request counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headgate.shared.cost.tokens import input_tokens
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage
from headgate.workers.errors import InvalidOutput
from headgate.workers.provider import Answer
from headgate.workers.providers.http import Response
from headgate.workers.providers.refusals import request_id, unusable
from headgate.workers.providers.reply_fields import (
    count,
    fields_of,
    limit_and_id_headers,
    storable,
)

BOTH = ("text", "image")

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "harassment": ("text",), "harassment/threatening": ("text",), "hate": ("text",),
    "hate/threatening": ("text",), "illicit": ("text",), "illicit/violent": ("text",),
    "self-harm": BOTH, "self-harm/instructions": BOTH, "self-harm/intent": BOTH,
    "sexual": BOTH, "sexual/minors": ("text",), "violence": BOTH, "violence/graphic": BOTH,
}  # fmt: skip
"""OpenAI's categories, and the kinds of input that each is applied to."""


def read_moderation(decoded: dict[str, Any], response: Response, request: Request) -> Answer:
    """Return the answer in a moderation object; raises InvalidOutput unless it judges each input.

    Mistral does not say whether an input is flagged: it is if one of its categories is.
    """
    results = decoded.get("results")
    wanted = len(request.inputs)
    if not isinstance(results, list) or len(results) != wanted:
        raise unusable(response, f"it does not hold {wanted} moderations")
    if not all(isinstance(fields_of(one).get("categories"), dict) for one in results):
        raise unusable(response, "a moderation has no categories")
    results = [{"flagged": any(one["categories"].values()), **one} for one in results]
    reply = moderation_reply({**decoded, "results": results}, request)
    reply = replace(reply, request_id=request_id(response.headers))
    return Answer(reply, limit_and_id_headers(response.headers))


def moderation_reply(body: dict[str, Any], request: Request) -> Reply:
    """Return the reply with this moderation object as its message."""
    told = count(fields_of(body.get("usage")).get("prompt_tokens"))
    return Reply(
        content=None,
        finish_reason="stop",
        usage=Usage(input_tokens=told or input_tokens(request)),
        provider_model=str(body.get("model") or ""),
        message=storable(body),
    )


def verdicts(returned: object, inputs: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what an operator's function returned, in OpenAI's form; raises InvalidOutput."""
    if not isinstance(returned, list | tuple) or len(returned) != len(inputs):
        raise _wrong(f"it returned no list of {len(inputs)} verdicts")
    return [_verdict(one, given) for one, given in zip(returned, inputs, strict=True)]


def _verdict(one: object, given: object) -> dict[str, Any]:
    if isinstance(one, bool):
        one = {"flagged": one}
    if not isinstance(one, Mapping):
        raise _wrong(f"a verdict is {type(one).__name__}, not a bool or a dict")
    scores, named = one.get("category_scores", {}), one.get("categories", {})
    if not (isinstance(scores, Mapping) and all(map(_is_score, scores.values()))):
        raise _wrong("category_scores of a verdict must be numbers from 0 to 1")
    if not (isinstance(named, Mapping) and all(isinstance(v, bool) for v in named.values())):
        raise _wrong("categories of a verdict must be true or false")
    flagged = one.get("flagged", any(named.values()))
    if not isinstance(flagged, bool):
        raise _wrong("flagged of a verdict must be true or false")
    names = list(dict.fromkeys([*CATEGORIES, *map(str, named), *map(str, scores)]))
    kinds = _kinds_in(given)
    return {
        "flagged": flagged,
        "categories": {name: bool(named.get(name, False)) for name in names},
        "category_scores": {name: float(scores.get(name, named.get(name, 0))) for name in names},
        "category_applied_input_types": {
            name: [kind for kind in CATEGORIES.get(name, BOTH) if kind in kinds] for name in names
        },
    }


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _kinds_in(given: object) -> set[str]:
    """Return which kinds of input, text or image, there are in one input."""
    if not isinstance(given, list):
        return {"text"}
    return {"text" if part.get("type") == "text" else "image" for part in given}


def _wrong(why: str) -> InvalidOutput:
    return InvalidOutput(f"the function of HEADGATE_MODERATION: {why}")
