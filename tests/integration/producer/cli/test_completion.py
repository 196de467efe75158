"""Shells complete commands, options and names: what click asks is answered."""

from pathlib import Path

import pytest

from headgate import Client, Settings
from headgate.producer.batch.input import InputSummary
from headgate.producer.batch.rows import BatchRows
from tests.support.command import headgate
from tests.support.servers import ValkeyServer


def completed(env: dict[str, str], line: str) -> list[str]:
    """What the shell offers at the end of this line."""
    words = line.split(" ")
    asked = {"_HEADGATE_COMPLETE": "bash_complete", "COMP_WORDS": line,
             "COMP_CWORD": str(len(words) - 1)}  # fmt: skip
    ended = headgate([], env | asked)
    assert (ended.code, ended.err) == (0, "")
    return [one.partition(",")[2] for one in ended.out.split()]


def test_commands_options_and_names_are_offered(valkey: ValkeyServer, tmp_path: Path) -> None:
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_REDIS_URL": valkey.url}
    assert completed(env, "headgate re") == ["result", "retry", "resume"]
    assert completed(env, "headgate batch s") == ["status", "submit"]
    assert "--priority" in completed(env, "headgate submit --")
    assert completed(env, "headgate submit --priority b") == ["bulk"]
    assert completed(env, "headgate submit --model gpt-4o-m") == ["gpt-4o-mini"]
    assert completed(env, "headgate submit --model au") == ["auto"]
    assert completed(env, "headgate batch run --model claude-haiku-4") == ["claude-haiku-4-5"]
    assert completed(env, "headgate limits --pool openai/gpt-4o-m") == ["openai/gpt-4o-mini"]
    assert completed(env, "headgate limits set pool/openai/gpt-4o-m") == ["pool/openai/gpt-4o-mini"]
    assert completed(env, "headgate worker --queues headgate.bulk.e") == ["headgate.bulk.embedding"]
    assert completed(env, "headgate result 0") == []
    assert not (tmp_path / "headgate.db").exists(), "nothing was made"

    with Client(Settings(home=tmp_path, redis_url=valkey.url)) as client:
        ids = [client.submit("x", model="gpt-4o-mini", tenant=t).id for t in ("acme", "apex")]
        summary = InputSummary(tmp_path / "in", "0", 1)
        batch = BatchRows(client.open().engine).create(summary, None, {}).id
    assert completed(env, "headgate result ") == ids[::-1], "the newest first"
    assert completed(env, f"headgate retry {ids[0][:-2]}")[-1] == ids[0]
    assert completed(env, "headgate jobs --tenant a") == ["acme", "apex"]
    assert completed(env, "headgate batch status batch_") == [batch]
    broken = env | {"HEADGATE_CATALOG": str(tmp_path / "none.toml")}
    assert completed(broken, "headgate submit --model g") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    ended = headgate([], {"_HEADGATE_COMPLETE": f"{shell}_source"})
    assert ended.code == 0
    assert f"_HEADGATE_COMPLETE={shell}_complete" in ended.out
