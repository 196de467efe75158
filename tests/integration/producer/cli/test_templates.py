"""Templates at the doors of a producer: the command, and a batch in both forms of its lines."""

from __future__ import annotations

import json
from pathlib import Path

from headgate import Client
from tests.support.command import headgate
from tests.support.played import PlayedWorker, ids_of, settings_for
from tests.support.servers import ValkeyServer


def test_a_template_is_used_by_command_and_by_batch(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    catalog, file = tmp_path / "own.toml", tmp_path / "in.jsonl"
    catalog.write_text('[templates.brief]\nprompt = "Say what {topic} is."\nmodel = "gpt-4o"\n')
    lines = [
        {"template": "brief", "variables": {"topic": "line one"}},
        {"template": "brief"},
        {
            "custom_id": "c",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"template": "brief", "variables": {"topic": "line three"}},
        },
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    env = {
        "HEADGATE_HOME": str(tmp_path),
        "HEADGATE_REDIS_URL": valkey.url,
        "HEADGATE_DATABASE_URL": sqlite_url,
        "HEADGATE_CATALOG": str(catalog),
    }
    with Client(settings_for(valkey.url, sqlite_url, tmp_path, catalog=catalog)) as client:
        single = headgate(["submit", "--template", "brief", "--var", "topic=a = b"], env)
        assert single.code == 0, single.err
        batch = headgate(["batch", "submit", file], env)
        assert "line 2: variables.topic: None: template brief needs it" in batch.err
        played = PlayedWorker(client.open())
        asked = [played.envelope(job_id) for job_id in ids_of(client.open())]
    assert sorted(job.request.prompt or "" for job in asked) == [
        "Say what a = b is.", "Say what line one is.", "Say what line three is.",
    ]  # fmt: skip
    assert {(job.model, job.request.template) for job in asked} == {("gpt-4o", "brief")}
