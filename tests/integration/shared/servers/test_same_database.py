"""Redis belongs to one database: others are refused, until an operator adopts one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from headgate import Client
from headgate.producer.installation import open_installation
from headgate.shared.broker.keys import Keys
from headgate.shared.errors import SettingError, Unreachable
from headgate.shared.settings import Settings
from tests.support.command import headgate
from tests.support.flower import monitored
from tests.support.servers import ValkeyServer

KEY = Keys().database()


def settings(server: ValkeyServer, url: str, home: Path) -> Settings:
    return Settings(redis_url=server.url, database_url=url, home=home)


def env(server: ValkeyServer, url: str | None, home: Path) -> dict[str, str]:
    named = {"HEADGATE_DATABASE_URL": url} if url else {}
    return {"HEADGATE_REDIS_URL": server.url, "HEADGATE_HOME": str(home), **named}


@pytest.fixture
def ready(database_url: str, tmp_path: Path) -> str:
    """The URL of a database with its tables."""
    assert headgate(["db", "upgrade"], {"HEADGATE_DATABASE_URL": database_url}).code == 0
    return database_url


def test_another_database_is_refused_until_it_is_adopted(
    valkey: ValkeyServer, ready: str, tmp_path: Path
) -> None:
    first = settings(valkey, ready, tmp_path)
    open_installation(first).close()
    open_installation(first).close()
    second = env(valkey, None, tmp_path / "second")
    with Client(first) as client:
        client.submit("waits for a worker")
        for words in (["submit", "hi"], ["result", "x"], ["health"], ["worker"], ["jobs"]):
            refused = headgate(words, second)
            assert refused.code == 2, refused
        assert "HEADGATE_DATABASE_URL (not set): sqlite:///" in refused.err
        assert "belongs to another database" in refused.err
        assert ready.rpartition("/")[2].partition("?")[0] in refused.err
        assert "headgate db adopt" in refused.err

        asked = headgate(["db", "adopt"], second)
        assert asked.code == 2, asked
        assert "have not ended on the database before" in asked.err
        adopted = headgate(["db", "adopt", "--yes"], second)
        assert adopted.code == 0, adopted
        assert "second/headgate.db" in adopted.out
        assert "before: " in adopted.out
        assert headgate(["submit", "hi"], second).code == 0
        # A producer that was open all the time notices at its next job.
        with pytest.raises(SettingError, match="belongs to another database"):
            client.submit("too late")
    again = headgate(["db", "adopt", "--yes"], second)
    assert "already" in again.out


def test_an_adoption_forgets_strays_before_workers_can_see_it(
    valkey: ValkeyServer, ready: str, tmp_path: Path
) -> None:
    """A worker that ends over it notes itself among them, perhaps at once."""
    open_installation(settings(valkey, ready, tmp_path)).close()
    seen: list[str] = []
    with monitored(valkey.url, ("headgate:strays", "SET headgate:database"), seen):
        adopted = headgate(["db", "adopt", "--yes"], env(valkey, None, tmp_path / "second"))
        assert adopted.code == 0, adopted
    assert [words.split()[:2] for words in seen] == [
        ["DEL", "headgate:strays"], ["SET", "headgate:database"]
    ]  # fmt: skip


def test_a_redis_that_was_emptied_gets_the_id_again(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    with Client(settings(valkey, sqlite_url, tmp_path)) as client, valkey.client() as redis:
        client.submit("one")
        stored = redis.get(KEY)
        assert stored
        redis.flushall()
        client.submit("two")
        assert redis.get(KEY) == stored


def test_a_password_is_neither_stored_nor_shown(
    valkey: ValkeyServer, postgres_url: str, tmp_path: Path
) -> None:
    url = postgres_url.replace("postgres@", "postgres:s3cret@")
    assert headgate(["db", "upgrade"], {"HEADGATE_DATABASE_URL": url}).code == 0
    open_installation(settings(valkey, url, tmp_path)).close()
    with valkey.client() as redis:
        stored = redis.get(KEY)
    assert stored
    assert "s3cret" not in str(stored)
    with pytest.raises(SettingError) as refused:
        open_installation(settings(valkey, f"sqlite:///{tmp_path}/other.db", tmp_path))
    assert "s3cret" not in str(refused.value)


def test_installations_with_prefixes_of_their_own_share_a_redis(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    for prefix in ("one:", "two:"):
        chosen = settings(valkey, f"sqlite:///{tmp_path}/{prefix[:3]}.db", tmp_path)
        open_installation(chosen.model_copy(update={"key_prefix": prefix})).close()


def test_a_producer_whose_sqlite_file_was_deleted_puts_no_job(
    valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    with Client(settings(valkey, sqlite_url, tmp_path)) as client, valkey.client() as redis:
        client.submit("one")
        Path(sqlite_url.removeprefix("sqlite:///")).unlink()
        for act in (lambda: client.submit("two"), lambda: client.status("one")):
            with pytest.raises(Unreachable, match="was deleted while it was in use"):
                act()
        assert redis.scard(Keys().present()) == 1


def test_a_home_without_its_database_tells_what_to_do(tmp_path: Path) -> None:
    here = {"HEADGATE_HOME": str(tmp_path / "home")}
    assert headgate(["submit", "one"], here).code == 0
    (tmp_path / "home" / "headgate.db").unlink()
    refused = headgate(["submit", "two"], here)
    assert refused.code == 2, refused
    assert "it was deleted or replaced" in refused.err
    assert f"delete the whole home {tmp_path / 'home'}" in refused.err
    assert headgate(["db", "adopt", "--yes"], here).code == 0
    assert headgate(["submit", "three"], here).code == 0


def test_a_redis_that_does_not_answer_is_no_mismatch(
    valkey_factory: Callable[..., ValkeyServer], sqlite_url: str, tmp_path: Path
) -> None:
    server = valkey_factory()
    open_installation(settings(server, sqlite_url, tmp_path)).close()
    server.kill()
    with pytest.raises(Unreachable, match="Redis at"):
        open_installation(settings(server, sqlite_url, tmp_path))
