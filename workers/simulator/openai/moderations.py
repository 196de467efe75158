"""Moderations in OpenAI's form: an input is flagged for the categories that it names.

`[[flag:violence]]` in a text, or in the address of an image, flags it for violence.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from headgate.workers.simulator.openai.requests import IMAGE_CHARS
from headgate.workers.simulator.request import Invalid, Json, SimulatedRequest, digest_of

FLAG = re.compile(r"\[\[flag:([a-z/-]+)\]\]")
DEFAULT = "omni-moderation-latest"
LOW, HIGH = 0.0001, 0.98
BOTH = ["text", "image"]
CATEGORIES = {
    "harassment": ["text"], "harassment/threatening": ["text"], "hate": ["text"],
    "hate/threatening": ["text"], "illicit": ["text"], "illicit/violent": ["text"],
    "self-harm": BOTH, "self-harm/instructions": BOTH, "self-harm/intent": BOTH,
    "sexual": BOTH, "sexual/minors": ["text"], "violence": BOTH, "violence/graphic": BOTH,
}  # fmt: skip
"""The categories, and the kinds of input that each is applied to."""


def read(body: Json) -> SimulatedRequest:
    """Read a moderation; raises Invalid where OpenAI would refuse it."""
    model = body.get("model", DEFAULT)
    if not isinstance(model, str) or not model:
        raise Invalid("Invalid 'model': expected a string.", "model")
    inputs = tuple(_inputs(body.get("input")))
    text = "\n".join(inputs)
    kinds = _kinds_in(body["input"])
    return SimulatedRequest(
        model=model, text=text, last="", chars=len(text) + kinds.count("image") * IMAGE_CHARS,
        digest=digest_of(body), inputs=inputs, kinds=kinds,
    )  # fmt: skip


def _inputs(found: Any) -> Iterator[str]:
    """Yield the text of each input; parts are one input."""
    if isinstance(found, str):
        yield found
        return
    if not isinstance(found, list) or not found:
        raise Invalid("'$.input' is invalid: expected a text or a list.", "input")
    if all(isinstance(one, str) for one in found):
        yield from found
        return
    yield "\n".join(_text_of(part, at) for at, part in enumerate(found))


def _text_of(part: Any, at: int) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str(url)}}:
            return url
    raise Invalid(f"'$.input[{at}]' is invalid.", f"input[{at}]")


def _kinds_in(found: Any) -> tuple[str, ...]:
    """Return the kind of each part, or `text`."""
    parts = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    return tuple("text" if one["type"] == "text" else "image" for one in parts) or ("text",)


def reply(ask: SimulatedRequest, answer_id: str) -> bytes:
    """Return the body of a moderation, which has no usage."""
    results = [_result(text, ask) for text in ask.inputs]
    return orjson.dumps({"id": answer_id, "model": ask.model, "results": results})


def _result(text: str, ask: SimulatedRequest) -> Json:
    found = set(FLAG.findall(text)) & CATEGORIES.keys()
    return {
        "flagged": bool(found),
        "categories": {name: name in found for name in CATEGORIES},
        "category_scores": {name: HIGH if name in found else LOW for name in CATEGORIES},
        "category_applied_input_types": {
            name: [kind for kind in kinds if kind in ask.kinds]
            for name, kinds in CATEGORIES.items()
        },
    }
