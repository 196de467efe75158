"""CacheEntry: an answer comes out of the cache as it went in, and nothing else comes out of it."""

import zlib
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.job.result import Reply, Usage
from headgate.workers.stages.cache_entry import (
    COMPRESS_ABOVE,
    COMPRESSED,
    MOST_BYTES,
    CacheEntry,
    Unreadable,
    decode,
    encode,
)

NOW_MS = 1_000_000
PLAIN = CacheEntry(Reply("four", "stop", Usage(3, 0, 0, 1, 0)), "openai", 12, "alpha", NOW_MS + 1)

counts = st.integers(0, 2**40)
replies = st.builds(
    Reply, st.none() | st.text(max_size=3000), st.sampled_from(["stop", "length"]),
    st.builds(Usage, counts, counts, counts, counts, counts),
    tool_calls=st.none() | st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
                                    max_size=2),
    embeddings=st.none() | st.lists(st.lists(st.floats(-1, 1), max_size=3), max_size=2),
    provider_model=st.text(max_size=5), request_id=st.none() | st.text(max_size=5),
    message=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
)  # fmt: skip
answers = st.builds(
    CacheEntry, replies, st.text(max_size=5), st.none() | counts, st.text(max_size=5), counts,
    st.booleans(),
)  # fmt: skip


@given(answers, counts)
def test_what_is_kept_comes_back(kept: CacheEntry, now_ms: int) -> None:
    found = decode(encode(kept), now_ms)
    assert found.shared == (kept.window_only or 0 < kept.until_ms < now_ms)
    assert (found.reply, found.provider, found.cost_pico_usd) == (
        kept.reply, kept.provider, kept.cost_pico_usd,
    )  # fmt: skip
    assert (found.model, found.until_ms, found.window_only) == (
        kept.model, kept.until_ms, kept.window_only,
    )  # fmt: skip


def test_a_long_answer_is_compressed_and_a_short_one_is_not() -> None:
    long = CacheEntry(Reply("a long word " * 500, "stop", Usage()), "openai", None)
    assert encode(long).startswith(COMPRESSED)
    assert len(encode(long)) < COMPRESS_ABOVE
    assert encode(PLAIN).startswith(b"{")


def test_an_entry_of_the_release_before_is_read() -> None:
    fields = {"reply": PLAIN.reply, "provider": "openai", "cost_pico_usd": 12}
    found = decode(orjson.dumps(fields), NOW_MS)
    assert (found.reply, found.model, found.shared) == (PLAIN.reply, "", False)


def changed(**fields: Any) -> bytes:
    whole = orjson.loads(encode(PLAIN))
    reply = whole["reply"] | fields.pop("reply", {})
    return orjson.dumps({**whole, "reply": reply, **fields})


@pytest.mark.parametrize(
    "entry",
    [
        b"", b"null", b"[]", b"{}", b"not JSON", b"\xff\xfe", b"[" * 10_000, encode(PLAIN)[:-1],
        COMPRESSED, COMPRESSED + b"no stream", COMPRESSED + zlib.compress(encode(PLAIN))[:-2],
        COMPRESSED + zlib.compress(encode(PLAIN)) + b"more",
        COMPRESSED + zlib.compress(b" " * (MOST_BYTES + 1)), b" " * (MOST_BYTES + 1),
        changed(provider=5), changed(provider=None), changed(model=[]), changed(until_ms="soon"),
        changed(cost_pico_usd="1"), changed(cost_pico_usd=True), changed(window_only=1),
        changed(reply={"content": 5}), changed(reply={"content": ["a"]}),
        changed(reply={"usage": None}), changed(reply={"usage": {"input_tokens": "1"}}),
        changed(reply={"usage": {"output_tokens": -1}}), changed(reply={"finish_reason": None}),
        changed(reply={"tool_calls": "x"}), changed(reply={"tool_calls": [1]}),
        changed(reply={"embeddings": [0.1]}), changed(reply={"request_id": {}}),
        changed(reply={"message": "x"}), changed(reply={"message": [1]}),
    ],
    ids=lambda entry: repr(entry[:40]),
)  # fmt: skip
def test_whatever_else_stands_there_is_no_answer_and_is_not_quoted(entry: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(entry, NOW_MS)
    assert len(str(caught.value)) < 60


@given(st.binary(max_size=200), st.integers(0, 400))
def test_no_bytes_raise_anything_else(noise: bytes, at: int) -> None:
    whole = encode(PLAIN)
    for entry in (noise, COMPRESSED + noise, whole[:at] + noise + whole[at + len(noise) :]):
        with suppress(Unreadable):
            assert isinstance(decode(entry, NOW_MS), CacheEntry)
