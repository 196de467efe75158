"""What a caller gives reaches the vendor whole, through files, servers and workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import installation
from tests.support.command import headgate
from tests.support.recorded_installation import asking
from tests.support.recording_provider import GivenAnswer, RecordingProvider, recording_provider
from tests.support.servers import ValkeyServer

CHAT = GivenAnswer(
    {
        "choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
)
VECTOR = GivenAnswer(
    {
        "data": [{"index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }
)
HI = '"messages":[{"role":"user","content":"Hi"}]'
STORED = (
    f'{{"model":"gpt-4o-mini",{HI},"user":"ann","metadata":{{"project":"p"}},"store":true,'
    '"seed":null,"newest":[12345678901234567890123,-1,0.1,null]}'
)
TUNED = f'{{"model":"ft:gpt-4o-mini:acme::1",{HI}}}'
BEYOND = f'{{"model":"claude-haiku-4-5",{HI},"logprobs":true}}'
TOKENS = '{"model":"text-embedding-3-small","input":[20,344,321],"dimensions":1,"user":"bob"}'


@pytest.fixture
def vendor() -> Iterator[RecordingProvider]:
    """A vendor of both dialects, whose answers each test sets."""
    with recording_provider(CHAT) as running:
        yield running


@pytest.fixture
def env(
    vendor: RecordingProvider, valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> Iterator[dict[str, str]]:
    """The settings of an installation with a worker that asks the vendor."""
    with asking(vendor, valkey, sqlite_url, tmp_path) as env:
        yield env


def run(
    env: dict[str, str],
    folder: Path,
    *bodies: str,
    url: str = "/v1/chat/completions",
    code: int = 0,
) -> list[dict[str, Any]]:
    """Run a batch with these bodies; return its lines of output, in order of input."""
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    output.unlink(missing_ok=True)
    source.write_text("".join(
        f'{{"custom_id":"{n}","method":"POST","url":"{url}","body":{body}}}\n'
        for n, body in enumerate(bodies)
    ))  # fmt: skip
    ended = headgate(["batch", "run", source, "-o", output], env)
    assert ended.code == code, ended
    return sorted(installation.lines_of(output), key=lambda line: str(line["custom_id"]))


def test_a_body_reaches_the_vendor_to_the_byte_and_what_cannot_is_refused_by_name(
    env: dict[str, str], vendor: RecordingProvider, tmp_path: Path
) -> None:
    lines = run(env, tmp_path, STORED, TUNED, BEYOND, STORED, code=1)
    sent = sorted(request.body.decode() for request in vendor.requests)
    assert sent == sorted([STORED, STORED, TUNED]), "what is to be stored is asked each time"
    assert lines[0]["headgate"]["metadata"] == {"project": "p"}
    assert float(lines[0]["headgate"]["cost_usd"]) > 0
    assert (lines[1]["headgate"]["model_used"], lines[1]["headgate"]["cost_usd"]) == (
        "ft:gpt-4o-mini:acme::1",
        None,
    )
    assert lines[2]["error"]["code"] == "invalid_request"
    assert "params.logprobs: 'claude-haiku-4-5'" in lines[2]["error"]["message"]

    told = headgate(["usage", "--by", "user", "--json"], env)
    assert '"ann"' in told.out, "the user of a body is ours, too"

    vendor.requests.clear()
    vendor.answers[:] = [VECTOR]
    [line] = run(env, tmp_path, TOKENS, url="/v1/embeddings")
    assert [request.body.decode() for request in vendor.requests] == [TOKENS]
    assert line["response"]["body"]["data"][0]["embedding"] == [0.5]
