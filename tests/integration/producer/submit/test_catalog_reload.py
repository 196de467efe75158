"""A client goes by the catalog that is in force: a reload is seen by its next submit."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate import Client
from headgate.producer.admin.limits import reload
from headgate.shared.errors import InvalidRequest
from headgate.shared.settings import Settings
from tests.support.servers import ValkeyServer

MODEL = """
[models."house-model"]
provider = "openai"
class = "fast"
context_tokens = 1000
max_output_tokens = 100
source = "a test"
checked = 2026-11-21
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text("")
    return path


@pytest.fixture
def client(valkey: ValkeyServer, tmp_path: Path, file: Path) -> Iterator[Client]:
    with Client(Settings(home=tmp_path, redis_url=valkey.url, catalog=file)) as opened:
        yield opened


def reloaded_by_another(client: Client) -> int:
    with Client(client.open().settings) as other:
        return reload(other.open())


def test_a_model_is_known_after_the_reload_and_not_before(client: Client, file: Path) -> None:
    assert client.submit("x", model="gpt-4o-mini")
    file.write_text(MODEL)
    with pytest.raises(InvalidRequest, match="house-model"):
        client.submit("x", model="house-model")
    assert reloaded_by_another(client) == 1
    assert client.submit("x", model="house-model")
    file.write_text("")
    assert reloaded_by_another(client) == 2
    with pytest.raises(InvalidRequest, match=r"requests\[0\].model"):
        client.submit_many([{"prompt": "x", "model": "house-model"}])


def test_a_file_that_is_bad_here_is_told_once_and_the_old_catalog_stays(
    client: Client, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(MODEL)
    reloaded_by_another(client)
    client.submit("x", model="house-model")
    client.open().redis.incr(client.open().keys.version())
    file.write_text('[pools."openai/gpt-4o"]\nrpm = -1\n')
    for _ in range(3):
        client.submit("x", model="house-model")
    assert caplog.text.count("the catalog was reloaded, but not here") == 1
    assert "rpm: -1" in caplog.text
