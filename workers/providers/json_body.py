"""JSON out to a vendor and back: what both dialects do with a body before they read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from headgate.shared.job.request import Request
from headgate.workers.errors import RequestRefused
from headgate.workers.providers.http import Response
from headgate.workers.providers.refusals import refusal, unusable
from headgate.workers.providers.reply_fields import fields_of


def dumped(body: dict[str, Any]) -> bytes:
    """The body as JSON; RequestRefused for what JSON cannot carry."""
    try:
        return orjson.dumps(body)
    except (TypeError, ValueError) as error:
        raise RequestRefused(f"the request cannot be written as JSON: {error}") from error


def texts_of(request: Request) -> Iterator[str]:
    """All texts of the request that an error must not repeat."""
    if request.input is not None:
        yield from [request.input] if isinstance(request.input, str) else request.input
        return
    for message in request.chat():
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"text": content}]:
            text = part.get("text")
            if isinstance(text, str):
                yield text


def decoded_or_raise(response: Response, request: Request, key: str) -> dict[str, Any]:
    """The JSON object of a good answer; raises the error that any other response stands for."""
    if response.status != 200:
        raise refusal(response, texts_of(request), key)
    try:
        decoded = orjson.loads(response.content)
    except ValueError as error:
        raise unusable(response, "it is not JSON") from error
    first = decoded[0] if isinstance(decoded, list) and decoded else decoded
    if fields_of(first).get("error"):
        # Some compatible servers report their faults with status 200.
        raise refusal(response, texts_of(request), key)
    if not isinstance(decoded, dict):
        raise unusable(response, "it is not an object")
    return decoded
