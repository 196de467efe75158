"""Read the body of a call: bounded in size and time, and JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from headgate.producer.gateway.calls.faults import CallRefused
from headgate.shared.job.encoding import loads


async def read_body(request: Request, *, most_bytes: int, within_s: float) -> bytes:
    """Return the body of the request.

    Raises CallRefused: 413 if it is larger, 408 if it takes longer, 415 if it is no JSON by its
    type, and ClientDisconnect.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if not (kind == "application/json" or kind.endswith("+json")):
        raise CallRefused(
            "unsupported_media_type", f"content-type: {kind[:80]}: send application/json"
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise CallRefused(
            "unsupported_media_type", f"content-encoding: {encoding[:80]}: send the body as it is"
        )
    if int(_digits(request.headers.get("content-length", "0"))) > most_bytes:
        raise _too_large(most_bytes)
    body = bytearray()  # one piece of memory, however small the pieces are that come
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > most_bytes:
                    raise _too_large(most_bytes)
                body += chunk
    except TimeoutError:
        words = f"the body did not arrive within {within_s:g} s (HEADGATE_GATEWAY_BODY_S)"
        raise CallRefused("request_timeout", words, retry_after_s=1) from None
    return bytes(body)


def decoded(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; raise CallRefused with 400 if there is none."""
    try:
        found = loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, orjson.JSONDecodeError) else "nested too deep"
        raise CallRefused("invalid_request", f"the body is no JSON: {reason}") from None
    if not isinstance(found, dict):
        words = f"the body is a JSON {type(found).__name__}; send an object"
        raise CallRefused("invalid_request", words)
    return found


async def gone(request: Request) -> None:
    """Return once the caller has closed the connection; call it after the body was read."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return


def _too_large(most_bytes: int) -> CallRefused:
    words = f"the body is larger than {most_bytes // 1_000_000} MB (HEADGATE_GATEWAY_BODY_MB)"
    return CallRefused("request_too_large", words)


def _digits(text: str) -> str:
    return text if text.isascii() and text.isdigit() and len(text) < 20 else "0"


__all__ = ["ClientDisconnect", "decoded", "gone", "read_body"]
