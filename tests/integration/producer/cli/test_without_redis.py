"""What is on record can be read while Redis is away, with a word that it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headgate import Client, Unreachable
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.played import PlayedWorker
from tests.support.servers import ValkeyServer


def test_jobs_result_and_batches_are_read_from_the_record(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    valkey = valkey_factory()
    settings = Settings(home=tmp_path, redis_url=valkey.url)
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_REDIS_URL": valkey.url}
    lines = tmp_path / "in.jsonl"
    lines.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with Client(settings) as client:
        ended = client.submit("one", model="gpt-4o-mini")
        PlayedWorker(client.open()).end(ended.id)
        waits = client.submit("two", model="gpt-4o-mini")
        batch = headgate(["batch", "submit", str(lines), "--model", "gpt-4o-mini"], env).out.strip()
    valkey.kill()

    with Client(settings) as client:
        listed = {job.id: job.status for job in client.jobs()}
        assert (listed[ended.id], listed[waits.id], len(listed)) == ("succeeded", "queued", 4)
        assert client.result(ended.id).status == client.status(ended.id) == "succeeded"
        assert client.result(waits.id).waiting_for is None
        assert "only the record is read" in caplog.text
        with pytest.raises(Unreachable, match="Redis"):
            client.submit("three", model="gpt-4o-mini")

    shown = headgate(["jobs", "--json"], env)
    assert (shown.code, len(shown.out.splitlines())) == (0, 4)
    assert "only the record is read" in shown.err
    assert headgate(["result", ended.id], env).code == 0
    assert headgate(["result", waits.id, "--wait"], env).code == 3
    found = headgate(["batch", "list", "--json"], env)
    assert (found.document["id"], found.document["open"], found.code) == (batch, 2, 0)
    assert "only the record is read" in found.err
    assert headgate(["batch", "status", batch], env).out.startswith(f"{batch}: running; 2 lines")
