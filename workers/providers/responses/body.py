"""Makes the body of OpenAI's `POST /responses` of a request in that form. Pure.

Params pass through as they are, null included. Only `max_output_tokens` is lowered where the model
writes less, and `background` is left out: the queue is the background.
"""

from __future__ import annotations

from typing import Any

from headgate.shared.job.request import Request

PATH = "/responses"


def response_body(request: Request, model: str, max_output_tokens: int) -> dict[str, Any]:
    """Return the body; without an input where params such as a conversation stand for it."""
    body: dict[str, Any] = {"model": model}
    given = request.prompt if request.input is None else request.input
    if given:
        body["input"] = given
    for name, value in request.params.items():
        if name == "max_output_tokens" and value is not None and max_output_tokens > 0:
            body[name] = min(value, max_output_tokens)
        elif name != "background":
            body[name] = value
    return body
