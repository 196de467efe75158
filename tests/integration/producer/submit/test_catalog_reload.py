"""A client uses the catalog in force: its next submit sees a reload."""

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sqlalchemy import insert

from headgate import Client, SettingError
from headgate.producer.admin.limits import reload
from headgate.shared.database.tables import callers
from headgate.shared.errors import InvalidRequest
from headgate.shared.settings import Settings
from tests.support.played import row_of
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


def test_a_bad_file_is_logged_once_and_the_old_catalog_stays(
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


def test_a_reload_does_not_change_where_tiers_come_from(
    valkey: ValkeyServer, tmp_path: Path, file: Path
) -> None:
    file.write_text("[tiers.pro]\nrpm = 10\n")
    settings = Settings(home=tmp_path, redis_url=valkey.url, catalog=file, tiers="table")
    with Client(settings) as client:
        at = client.open()
        with at.engine.begin() as connection:
            row = {"tenant": "acme", "user_id": "", "tier": "pro"}
            connection.execute(insert(callers), [row])
        ids = [client.submit("before", tenant="acme").id]
        assert reloaded_by_another(client) == 1
        ids.append(client.submit("after", tenant="acme").id)
        envelopes = [orjson.loads(row_of(at, job_id).envelope) for job_id in ids]
    assert [envelope["request"]["tier"] for envelope in envelopes] == ["pro", "pro"]


def test_a_bad_source_of_tiers_stops_the_client_when_it_opens(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, redis_url=valkey.url, tiers="no.such.module:tier_of")
    with Client(settings) as client, pytest.raises(SettingError, match="HEADGATE_TIERS"):
        client.open()
