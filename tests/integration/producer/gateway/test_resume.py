"""A stream is resumed with the events that follow, and never with those of another answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.gateway import ask, events_in, house
from tests.support.servers import Simulator, ValkeyServer

CHAT = "/v1/chat/completions"


def test_a_stream_is_resumed_by_its_key_or_its_retry_and_else_refused(
    valkey: ValkeyServer,
    sqlite_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": "Name a river."}],
        "headgate": {"cache": "off", "share": False},
    }
    with house(valkey, sqlite_url, simulator_factory(), tmp_path) as at:
        whole = events_in(ask(at.gateway, CHAT, body, idempotency_key="k-7").body)
        rest = ask(at.gateway, CHAT, body, idempotency_key="k-7", last_event_id="3")
        assert events_in(rest.body) == whole[3:]
        again = ask(at.gateway, f"{CHAT}?starting_after=5", body, idempotency_key="k-7")
        assert events_in(again.body) == whole[5:]
        first = events_in(ask(at.gateway, CHAT, body, x_stainless_retry_count="0").body)
        retried = ask(at.gateway, CHAT, body, x_stainless_retry_count="1", last_event_id="2")
        assert events_in(retried.body) == first[2:]
        others: list[dict[str, Any]] = [{}, {"idempotency_key": "k-8"}]
        for headers in others:
            refused = ask(at.gateway, CHAT, body, last_event_id="3", **headers)
            assert (refused.status, "Idempotency-Key" in refused.body.decode()) == (410, True)
            assert refused.headers["x-should-retry"] == "false"
        assert at.simulator.stats()["requests"] == 2
