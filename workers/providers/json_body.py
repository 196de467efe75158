"""Encodes a vendor's request as JSON, and decodes its answer, for both dialects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headgate.shared.job.blocks import texts_in
from headgate.shared.job.encoding import dumps
from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import readable
from headgate.workers.errors import RequestRefused
from headgate.workers.providers.http import Response
from headgate.workers.providers.lenient_json import read_json
from headgate.workers.providers.refusals import refusal, unusable
from headgate.workers.providers.reply_fields import fields_of


def dumped(body: dict[str, Any]) -> bytes:
    """Return the body as JSON; raises RequestRefused if it holds what JSON cannot."""
    try:
        return dumps(body)
    except (TypeError, ValueError) as error:
        raise RequestRefused(f"the request cannot be written as JSON: {error}") from error


def texts_of(request: Request) -> Iterator[str]:
    """Yield all texts of the request. No error may repeat them."""
    if request.answer_kind != "text":
        for one in request.inputs:
            yield from texts_in(one)
        return
    request = readable(request)
    for message in request.chat():
        yield from texts_in(message.get("content"))
    yield from texts_in(request.params.get("system"))


def decoded_or_raise(response: Response, request: Request, key: str) -> dict[str, Any]:
    """Return the JSON object of a good answer; raises the AttemptError of any other response."""
    if response.status != 200:
        raise refusal(response, texts_of(request), key)
    try:
        decoded = read_json(response.content)
    except ValueError as error:
        raise unusable(response, "it is not JSON") from error
    first = decoded[0] if isinstance(decoded, list) and decoded else decoded
    if fields_of(first).get("error"):
        # Some compatible servers report faults with status 200.
        raise refusal(response, texts_of(request), key)
    if not isinstance(decoded, dict):
        raise unusable(response, "it is not an object")
    return decoded
