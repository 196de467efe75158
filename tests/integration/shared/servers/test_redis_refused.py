"""A Redis that Headgate cannot work with is refused at the start, with the reason and a remedy."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from headgate.producer.installation import open_installation
from headgate.shared.errors import Unfit, Unreachable
from headgate.shared.servers.servers import open_servers
from headgate.shared.settings import Settings
from tests.support import installation, redis_forms
from tests.support.child import ChildFailed, wait_until
from tests.support.command import headgate
from tests.support.redis_forms import AclServer, Certificates, tls_front
from tests.support.sentinels import MASTER_NAME, SentinelProcess
from tests.support.servers import ValkeyServer, free_port, short_folder


def refusal(url: str, home: Path, prefix: str = "") -> Unreachable:
    """Return the error with which this URL is refused."""
    with pytest.raises(Unreachable) as raised:
        open_installation(Settings(redis_url=url, home=home, key_prefix=prefix)).close()
    return raised.value


def test_a_node_of_a_cluster_is_refused_by_commands_and_workers(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    ports = ["--cluster-port", str(free_port())]  # else 10,000 above its own, where others listen
    url = valkey_factory(extra=["--cluster-enabled", "yes", *ports]).url
    found = refusal(url, tmp_path)
    assert isinstance(found, Unfit)
    assert "a node of a Redis Cluster" in str(found)
    env = {"HEADGATE_HOME": str(tmp_path), "HEADGATE_REDIS_URL": url}
    command = installation.command(["submit", "hello"], env, tmp_path / "submit.log")
    with installation.ended_afterwards(command):
        command.start()
        assert installation.exit_code(command) == 3
        assert "use a single Redis" in command.log()
    worker = installation.worker_process(env, tmp_path)
    with installation.ended_afterwards(worker):
        with pytest.raises(ChildFailed):
            worker.start()
        assert worker.exit_code() == 3
        assert "a node of a Redis Cluster" in worker.log()


def test_sqlite_with_a_redis_of_another_machine_is_refused_by_commands_and_workers(
    tmp_path: Path,
) -> None:
    """Two machines with a record each would run each other's jobs again and pay twice."""
    url = "redis://u:s3cret@redis.example:6379/0"  # nobody asks it
    env = {"HEADGATE_HOME": str(tmp_path / "home"), "HEADGATE_REDIS_URL": url}
    for how in (env, env | {"HEADGATE_DATABASE_URL": f"sqlite:///{tmp_path / 'own.db'}"}):
        for command in (["submit", "hello"], ["worker"], ["health"]):
            ended = headgate(command, how)
            assert ended.code == 2, ended
            assert "HEADGATE_REDIS_URL: 'redis://u:***@redis.example:6379/0'" in ended.err
            assert "HEADGATE_DATABASE_URL" in ended.err
            assert "HEADGATE_SQLITE_SHARED=1" in ended.err
            assert "s3cret" not in ended.err
    assert not (tmp_path / "own.db").exists()


def test_a_remote_redis_is_accepted_with_postgresql_or_on_purpose(tmp_path: Path) -> None:
    chosen = Settings(redis_url="redis://redis.example/0", home=tmp_path)
    on_purpose = chosen.model_copy(update={"sqlite_shared": True})
    open_servers(on_purpose).close()
    database = {"database_url": "postgresql://db.example/headgate"}
    open_servers(chosen.model_copy(update=database)).close()
    open_servers(chosen, record=False).close()


def follows(client: redis.Redis) -> bool:
    """Whether the server has all that its master has."""
    facts: Any = client.info("replication")
    return (facts["role"], facts.get("master_link_status")) == ("slave", "up")


def test_a_replica_is_refused_and_names_its_master(
    valkey: ValkeyServer, valkey_factory: Callable[..., ValkeyServer], tmp_path: Path
) -> None:
    replica = valkey_factory(extra=["--replicaof", "127.0.0.1", str(valkey.port)])
    with replica.client() as client:  # while it loads the master's data it refuses to answer
        wait_until(lambda: follows(client), 10, "the replica to be one")
    found = refusal(replica.url, tmp_path)
    assert isinstance(found, Unfit)
    assert f"read-only replica of 127.0.0.1:{valkey.port}" in str(found)


def test_a_policy_that_evicts_jobs_is_warned_of(
    valkey_factory: Callable[..., ValkeyServer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = valkey_factory()
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    with caplog.at_level(logging.WARNING):
        open_installation(Settings(redis_url=server.url, home=tmp_path)).close()
    assert "maxmemory-policy allkeys-lru" in caplog.text


@pytest.fixture
def acl_server() -> Iterator[AclServer]:
    with short_folder() as folder, AclServer(folder) as server:
        yield server


def test_a_wrong_password_is_refused_without_being_shown(
    acl_server: AclServer, tmp_path: Path
) -> None:
    url = f"redis://headgate:not-the-p%40ss@127.0.0.1:{acl_server.port}/0"
    found = refusal(url, tmp_path, redis_forms.PREFIX)
    assert isinstance(found, Unfit)
    assert "headgate:***@" in str(found)
    assert "WRONGPASS" in str(found) or "invalid username-password" in str(found)
    assert "not-the" not in str(found)
    bare = refusal(f"redis://127.0.0.1:{acl_server.port}/0", tmp_path)
    assert isinstance(bare, Unfit)
    assert "password" in bare.remedy


@pytest.mark.parametrize(
    "command", ["info", "blpop", "publish", "smismember", "hincrby", "evalsha"]
)
def test_a_right_that_a_user_lacks_is_named(command: str, tmp_path: Path) -> None:
    with short_folder() as folder, AclServer(folder, without=(command,)) as server:
        chosen = Settings(
            redis_url=server.headgate_url, home=tmp_path, key_prefix=redis_forms.PREFIX
        )
        servers = open_servers(chosen)
        with pytest.raises(Unfit, match=f"'{command}' command") as raised:
            servers.check_redis(to_work=True)
        assert "deploy/redis.acl" in str(raised.value)


def test_the_user_of_the_deployed_file_may_do_all_that_a_worker_does(
    acl_server: AclServer, tmp_path: Path
) -> None:
    chosen = Settings(
        redis_url=acl_server.headgate_url, home=tmp_path, key_prefix=redis_forms.PREFIX
    )
    open_servers(chosen).check_redis(to_work=True)
    assert acl_server.refused() == []
    with acl_server.client() as client:
        assert client.keys("*") == []
    other = Settings(redis_url=acl_server.headgate_url, home=tmp_path, key_prefix="other:")
    with pytest.raises(Unfit, match="key"):
        open_servers(other).check_redis(to_work=True)


@contextmanager
def certified(folder: Path, valkey: ValkeyServer, *names: str, **how: object) -> Iterator[str]:
    """Return a rediss:// URL of a server with such a certificate, with its authority."""
    trusted = Certificates(folder)
    with tls_front(valkey.port, trusted.server_side(*names, **how)) as front:  # type: ignore[arg-type]
        yield f"rediss://127.0.0.1:{front.port}/0?{trusted.query()}"


def test_a_certificate_of_another_name_or_of_yesterday_is_refused(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    with certified(tmp_path, valkey) as url:
        open_installation(Settings(redis_url=url, home=tmp_path)).close()
    with certified(tmp_path, valkey, "redis.example.com") as url:
        found = refusal(url, tmp_path)
        assert isinstance(found, Unfit)
        assert "CERTIFICATE_VERIFY_FAILED" in str(found)
        assert "127.0.0.1" in found.reason
        open_installation(
            Settings(redis_url=f"{url}&ssl_check_hostname=false", home=tmp_path)
        ).close()
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    with certified(tmp_path, valkey, not_after=yesterday) as url:
        found = refusal(url, tmp_path)
        assert isinstance(found, Unfit)
        assert "expired" in str(found)


def test_an_unknown_authority_and_a_missing_client_certificate_are_refused(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    ours, theirs = Certificates(tmp_path / "a"), Certificates(tmp_path / "b")
    with tls_front(valkey.port, theirs.server_side()) as front:
        found = refusal(f"rediss://127.0.0.1:{front.port}/0?{ours.query()}", tmp_path)
        assert isinstance(found, Unfit)
        assert "ssl_ca_certs" in found.remedy
    with tls_front(valkey.port, ours.server_side(client_needed=True)) as front:
        url = f"rediss://127.0.0.1:{front.port}/0?"
        assert "ssl_certfile" in refusal(f"{url}{ours.query()}", tmp_path).remedy
        whole = Settings(redis_url=f"{url}{ours.query(client=True)}", home=tmp_path)
        open_installation(whole).close()


def test_plain_text_to_a_tls_port_and_tls_to_a_plain_one_say_what_to_write(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    with tls_front(valkey.port, Certificates(tmp_path).server_side()) as front:
        assert "use rediss://" in str(refusal(f"redis://127.0.0.1:{front.port}/0", tmp_path))
    url = f"rediss://127.0.0.1:{valkey.port}/0"
    assert "use redis://" in str(refusal(url, tmp_path))


def test_sentinels_that_are_away_or_watch_another_master_are_named(
    valkey: ValkeyServer, tmp_path: Path
) -> None:
    gone = 1  # nothing listens there
    found = refusal(f"sentinel://127.0.0.1:{gone}/0?master_name=mine", tmp_path)
    assert not isinstance(found, Unfit), "they may come back"
    assert f"127.0.0.1:{gone}" in found.reason
    with short_folder() as folder, SentinelProcess(folder, valkey.port) as sentinel:
        hosts = f"sentinel://127.0.0.1:{gone},127.0.0.1:{sentinel.port}/0"
        found = refusal(f"{hosts}?master_name=mine", tmp_path)
        assert isinstance(found, Unfit)
        assert f"known: {MASTER_NAME}" in str(found)
        whole = Settings(redis_url=f"{hosts}?master_name={MASTER_NAME}", home=tmp_path)
        open_installation(whole).close()
        with sentinel.client() as client:
            client.execute_command("ACL", "SETUSER", "default", f">{'s3cret'}")
        found = refusal(f"{hosts}?master_name={MASTER_NAME}", tmp_path)
        assert isinstance(found, Unfit)
        assert "sentinel_password" in found.remedy
        login = f"&sentinel_password={quote('s3cret')}"
        open_installation(
            Settings(redis_url=f"{hosts}?master_name={MASTER_NAME}{login}", home=tmp_path)
        ).close()
