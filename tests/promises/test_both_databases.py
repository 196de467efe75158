"""The same batch on PostgreSQL with a shared Redis, and on the embedded default."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import installation
from tests.support.command import headgate
from tests.support.servers import Simulator, ValkeyServer

PREFIX = "acme_"
COMMON = {
    "HEADGATE_CONCURRENCY": "1",
    "HEADGATE_BACKOFF_S": "0.05",
    "HEADGATE_BACKOFF_MAX_S": "0.1",
    "HEADGATE_BREAKER_FAILURES": "0",  # one line fails until it has no try left
}
SUMS = (
    "lines", "succeeded", "failed", "open", "failures", "bad_lines", "cached", "fallbacks",
    "attempts", "retries", "refusals", "unknown_attempts", "unpriced_attempts", "input_tokens",
    "output_tokens", "cost_usd",
)  # fmt: skip


def write_mixed(path: Path) -> int:
    """A file with one of everything; how many lines it has. One job at a time: so it repeats."""
    lines: list[dict[str, Any]] = []
    for n, model in enumerate(("gpt-4o-mini", "claude-haiku-4-5", "gpt-4o", "claude-sonnet-4-6")):
        lines += [{"prompt": f"ask {n}.{i}", "model": model, "user": "u"} for i in range(5)]
        lines.append({"prompt": f"ask {n}.0", "model": model, "user": "u"})  # in the cache by then
    lines += [
        {"input": ["one text", "two texts"], "model": "text-embedding-3-small"},
        {"prompt": "Nul \x00, \U0001f600 and ünïcode", "metadata": {"k": "\x00"}},
        {"prompt": "a tool", "params": {"tools": [_tool()], "tool_choice": "required"}},
        {"prompt": "JSON", "params": {"response_format": {"type": "json_object"}}},
        {"prompt": "[[fault:once:500]] again"},
        {"prompt": "[[fault:500:model=gpt-4o-mini]] another model", "model": "gpt-4o-mini"},
        {"prompt": "[[fault:400]] refused"},
        {"prompt": "no fallback [[fault:503]]", "fallback": False},
        {"prompt": "wrong", "nonsense": 1},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return len(lines)


def _tool() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    return {"type": "function", "function": {"name": "weather", "parameters": schema}}


def _told(path: Path) -> dict[int, Any]:
    """What each line came to, less ids and times."""
    told = {}
    for line in installation.lines_of(path):
        ours, body = line["headgate"], (line["response"] or {}).get("body", {})
        for name in ("queued_ms", "latency_ms", "batch_id", "job_id"):
            ours.pop(name, None)
        (ours.get("message") or {}).pop("id", None)
        for attempt in ours.get("failed_attempts", []):
            attempt.pop("waited_ms")
        for name in ("id", "created"):
            body.pop(name, None)
        told[ours["line"]] = [line["custom_id"], body, line["error"], ours]
    return told


def test_both_databases_give_equal_answers_and_sums(
    valkey: ValkeyServer,
    postgres_url: str,
    simulator_factory: Callable[..., Simulator],
    tmp_path: Path,
) -> None:
    source = tmp_path / "in.jsonl"
    count = write_mixed(source)
    shared_servers = {
        **COMMON,
        "HEADGATE_HOME": str(tmp_path / "unused"),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_KEY_PREFIX": PREFIX,
        "HEADGATE_DATABASE_URL": postgres_url,
        "HEADGATE_SIMULATOR_URL": simulator_factory().url,
    }
    embedded_default = {
        **COMMON,
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_SIMULATOR_URL": simulator_factory().url,
    }
    assert headgate(["db", "upgrade"], shared_servers).code == 0
    worker = installation.worker_process(shared_servers, tmp_path)
    run = ["batch", "run", str(source), "--json", "-o"]
    with installation.ended_afterwards(worker):
        worker.start()
        there = headgate([*run, tmp_path / "there"], shared_servers)
        assert worker.stop(20) == 0
    here = headgate([*run, tmp_path / "here"], embedded_default)
    assert (there.code, here.code) == (1, 1), (there.err, here.err)

    told = _told(tmp_path / "here")
    assert sorted(told) == list(range(1, count + 1))
    assert _told(tmp_path / "there") == told
    assert {name: there.document[name] for name in SUMS} == {
        name: here.document[name] for name in SUMS
    }
    assert (here.document["cached"], here.document["fallbacks"]) == (4, 1)
    assert here.document["failed"] == 3
    books = installation.read_books(installation.database_url(embedded_default))
    assert installation.read_books(postgres_url) == books
    assert books.ledger_usd == books.audit_usd > 0

    with valkey.client() as broker:
        keys = list(broker.scan_iter(count=1_000))
    assert keys
    assert [key for key in keys if not key.startswith(PREFIX)] == []
    assert not (tmp_path / "unused" / "headgate.db").exists()
    installation.nothing_is_left(tmp_path / "home")
