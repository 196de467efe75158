"""`headgate jobs` and `headgate job show` from outside; the options of `submit` reach the job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from headgate.shared.database.engine import open_engine
from headgate.shared.database.tables import jobs
from tests.support.command import headgate
from tests.support.played_worker import PlayedWorker
from tests.support.servers import ValkeyServer

CONTENT = "a prompt that nobody else reads"


@pytest.fixture
def env(valkey: ValkeyServer, sqlite_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "HEADGATE_REDIS_URL": valkey.url, "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_HOME": str(tmp_path / "home"), "OPENAI_API_KEY": "sk-test",
    }  # fmt: skip


@pytest.fixture
def worker(env: dict[str, str]) -> Iterator[None]:
    assert headgate(["db", "upgrade"], env).code == 0
    servers = env["HEADGATE_DATABASE_URL"], env["HEADGATE_REDIS_URL"]
    with PlayedWorker(*servers, fails=lambda given: "fail" in str(given)):
        yield


@pytest.mark.usefixtures("worker")
def test_jobs_are_found_paged_and_told(env: dict[str, str]) -> None:
    options = ["--model", "gpt-4o-mini", "--tenant", "acme", "--user", "u1", "--metadata", "run=7"]
    good = headgate(["submit", CONTENT, *options, "--wait", "--json"], env).document["id"]
    bad = headgate(["submit", "fail", *options, "--wait", "--json"], env).document["id"]
    other = headgate(["submit", "x", "--model", "gpt-4o-mini", "--wait", "--json"], env)

    def found(*filters: str) -> list[str]:
        listed = headgate(["jobs", "--json", *filters], env)
        assert listed.code == 0, listed.err
        return [orjson.loads(line)["id"] for line in listed.out.splitlines()]

    assert found() == [other.document["id"], bad, good]
    assert found("--metadata", "run=7") == [bad, good]
    assert found("--code", "provider_error", "--user", "u1") == [bad]
    assert found("--model", "openai/gpt-4o-mini", "--tenant", "acme") == [bad, good]
    assert found("--before", bad[:23]) == [good]
    page = headgate(["jobs", "--limit", "1"], env)
    assert f"add --before {other.document['id']}" in page.err
    header, row = page.out.splitlines()
    assert header.split("\t")[:5] == ["id", "status", "why", "took", "cost"]
    assert row.split("\t")[:3] == [other.document["id"], "succeeded", "-"]
    assert headgate(["result", good[:23]], env).out == f"echo: {CONTENT}\n"
    assert headgate(["jobs", "--code", "teapot"], env).code == 2

    shown = headgate(["job", "show", bad[:23]], env)
    assert (shown.code, "failed (provider_error)" in shown.out) == (0, True), shown
    told = headgate(["job", "show", good, "--json"], env)
    assert CONTENT not in told.out
    assert told.document["timeline"][0]["event"] == "submitted"
    assert told.document["metadata"] == {"run": "7"}
    assert CONTENT in headgate(["job", "show", good, "--content"], env).out
    assert headgate(["job", "show", "no-such-job"], env).code == 2


def request_of(env: dict[str, str], job_id: str) -> dict[str, Any]:
    """The request as the record has it."""
    engine = open_engine(env["HEADGATE_DATABASE_URL"])
    with engine.connect() as connection:
        encoded = connection.scalar(select(jobs.c.envelope).where(jobs.c.id == job_id))
    engine.dispose()
    found: dict[str, Any] = orjson.loads(str(encoded))["request"]
    return found


def test_the_options_of_submit_reach_the_job_and_errors_name_them(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert headgate(["db", "upgrade"], env).code == 0
    arguments = (
        "--model gpt-4o-mini --deadline 10m --cache off --no-fallback --set params.temperature=0.2 "
        "--set params.stop=END --metadata run=7 --max-cost-usd 0.5 --system Short."
    )
    ended = headgate(["submit", "hi", *arguments.split(), "--json"], env)
    assert ended.code == 0, ended.err
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "hi"}\n{"prompt": "ho", "params": {"temperature": 1}}\n')
    batch = headgate(["batch", "submit", source, *arguments.split(), "--json"], env)
    assert batch.code == 0, batch.err
    listed = headgate(["jobs", "--json"], env).out.splitlines()
    requests = [request_of(env, orjson.loads(line)["id"]) for line in listed]
    for request in requests:
        assert request["messages"][0] == {"role": "system", "content": "Short."}
        assert (request["deadline_s"], request["fallback"]) == (600.0, False)
        assert request["cache"]["mode"] == "off"
        assert request["params"]["stop"] == "END"
        assert (request["metadata"], request["max_cost_usd"]) == ({"run": "7"}, "0.5")
    assert sorted(one["params"]["temperature"] for one in requests) == [0.2, 0.2, 1]
    for command in (["submit", "hi"], ["batch", "submit", source]):
        wrong = headgate([*command, "--set", "params.temperature=hot", "--deadline", "x"], env)
        assert (wrong.code, "--deadline: 'x'" in wrong.err) == (2, True), wrong
        wrong = headgate([*command, "--max-cost-usd", "much"], env)
        assert (wrong.code, "--max-cost-usd: 'much'" in wrong.err) == (2, True), wrong
