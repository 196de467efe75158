"""The cache entry: encode an answer, compressed where that pays, and decode it with suspicion."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from headgate.shared.job.result import Reply, Usage, known_fields

COMPRESSED = b"z"
"""First byte of a compressed entry; JSON begins with `{`."""

COMPRESS_ABOVE = 1024
LEVEL = 1
"""Measured on English text of 4 kB: 30 us and 52 % of the bytes; level 6 takes 43 us for 50 %."""

MOST_BYTES = 32 * 1024 * 1024
"""Largest size of an entry once inflated: a few stored bytes can grow a thousandfold."""


class Unreadable(ValueError):
    """The cache entry holds no answer; `args[0]` says why, and quotes nothing of it."""


class TooLargeToCache(ValueError):
    """The answer takes more than MOST_BYTES, so nobody could read its entry."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An answer in the cache. `cost_pico_usd`: what it cost then, or None if not known.

    `model`: the one that answered; empty where an older release wrote the entry. `until_ms`: the
    end of its lifetime by the server's clock, Unix ms; 0 where Redis alone expires it.
    `window_only`: another model answered than was asked, so that the entry is for jobs that wait
    for the same call. `shared`: it serves only such jobs, for this or because it has expired.
    """

    reply: Reply
    provider: str
    cost_pico_usd: int | None
    model: str = ""
    until_ms: int = 0
    window_only: bool = False
    shared: bool = False


def encode(entry: CacheEntry) -> bytes:
    """Encode the entry for Redis. `shared` is left out: it depends on when the entry is read.

    Raises TooLargeToCache.
    """
    fields = orjson.dumps(
        {
            "reply": entry.reply,
            "provider": entry.provider,
            "cost_pico_usd": entry.cost_pico_usd,
            "model": entry.model,
            "until_ms": entry.until_ms,
            "window_only": entry.window_only,
        }
    )
    if len(fields) > MOST_BYTES:
        raise TooLargeToCache
    if len(fields) <= COMPRESS_ABOVE:
        return fields
    return COMPRESSED + zlib.compress(fields, LEVEL)


def decode(stored: bytes, now_ms: int) -> CacheEntry:
    """Return the entry that `encode` wrote; raise Unreadable for anything else."""
    try:
        fields = orjson.loads(_inflated(stored))
        reply = _reply(fields["reply"])
        cost = fields["cost_pico_usd"]
        until_ms = fields.get("until_ms", 0)
        window_only = fields.get("window_only", False)
        entry = CacheEntry(
            reply, fields["provider"], cost, fields.get("model", ""), until_ms, window_only,
            shared=window_only or 0 < until_ms < now_ms,
        )  # fmt: skip
    except Unreadable:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(type(error).__name__) from None
    if not (
        isinstance(entry.provider, str)
        and isinstance(entry.model, str)
        and (cost is None or _is_count(cost))
        and _is_count(until_ms)
        and isinstance(window_only, bool)
    ):
        raise Unreadable("a field of another type")
    return entry


def _inflated(stored: bytes) -> bytes:
    if len(stored) > MOST_BYTES:
        raise Unreadable("too large")
    if not stored.startswith(COMPRESSED):
        return stored
    stream = zlib.decompressobj()
    try:
        fields = stream.decompress(stored[1:], MOST_BYTES)
    except zlib.error:
        raise Unreadable("not compressed as its first byte says") from None
    if stream.unconsumed_tail or stream.unused_data or not stream.eof:
        raise Unreadable("cut off, or too large")
    return fields


def _reply(fields: Any) -> Reply:
    known = known_fields(Reply, fields)
    usage = known_fields(Usage, known["usage"])
    if not all(map(_is_count, usage.values())):
        raise Unreadable("token counts that are not numbers")
    known["usage"] = Usage(**usage)
    reply = Reply(**known)
    right = (
        (reply.content is None or isinstance(reply.content, str))
        and isinstance(reply.finish_reason, str)
        and isinstance(reply.provider_model, str)
        and isinstance(reply.request_id, str | None)
        and _are(reply.tool_calls, dict)
        and _are(reply.embeddings, list)
        and isinstance(reply.message, dict | None)
    )
    if not right:
        raise Unreadable("a reply of another type")
    return reply


def _are(values: Any, kind: type) -> bool:
    return values is None or (
        isinstance(values, list) and all(isinstance(value, kind) for value in values)
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
