"""A Sentinel set from the one Valkey binary: a master, two replicas, three sentinels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.child import ChildProcess, wait_until
from tests.support.servers import ValkeyServer, free_port, short_folder, valkey_binary

MASTER_NAME = "mymaster"
DOWN_AFTER_MS = 1000


class SentinelProcess(ChildProcess):
    """One sentinel that watches the master on `master_port`; two must agree that it is down."""

    def __init__(self, folder: Path, master_port: int) -> None:
        """Prepare a sentinel with its files in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        watched = f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master_port} 2"
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {folder}",
            watched,
            f"sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER_NAME} 4000",
            f"sentinel parallel-syncs {MASTER_NAME} 2",
        )
        conf = folder / "sentinel.conf"
        conf.write_text("\n".join(lines) + "\n")
        argv: list[str | Path] = [valkey_binary(), conf, "--sentinel"]
        super().__init__(argv, log_path=folder / "sentinel.log", cwd=folder)

    def client(self) -> redis.Redis:
        """A new client of this sentinel; the caller closes it."""
        return redis.Redis(
            port=self.port, decode_responses=True, retry=Retry(NoBackoff(), 0), socket_timeout=2
        )

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def sees(self) -> dict[str, Any]:
        """What this sentinel says of the master; empty while it does not answer."""
        try:
            with self.client() as client:
                found: Any = client.execute_command("SENTINEL", "MASTER", MASTER_NAME)
        except redis.RedisError:
            return {}
        return found if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))


class SentinelSet:
    """Servers and sentinels, started; `master` is the server that two sentinels agree on."""

    def __init__(self, servers: list[ValkeyServer], sentinels: list[SentinelProcess]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address as HEADGATE_REDIS_URL takes it."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"sentinel://{hosts}/0?master_name={MASTER_NAME}"

    @property
    def master(self) -> ValkeyServer:
        """The server that every sentinel names as the master; raises TimeoutError."""
        found: list[ValkeyServer] = []

        def agreed() -> bool:
            ports = {int(one.sees().get("port", 0)) for one in self.sentinels}
            found[:] = [server for server in self.servers if {server.port} == ports]
            return bool(found)

        wait_until(agreed, 30, "the sentinels to agree on the master")
        return found[0]

    def new_master(self, old: ValkeyServer) -> ValkeyServer:
        """Another server than `old` is the master, in the eyes of every sentinel and its own."""
        wait_until(lambda: self.master is not old, 30, "a failover")
        wait_until(lambda: role(self.master) == "master", 30, "the new master to know it")
        return self.master

    def settled(self) -> None:
        """Sentinels know each other, and every replica has what the master has."""

        def whole() -> bool:
            seen = [one.sees() for one in self.sentinels]
            if not all(int(s.get("num-other-sentinels", 0)) >= 2 for s in seen):
                return False
            if not all(int(s.get("num-slaves", 0)) >= 2 for s in seen):
                return False
            with self.master.client() as client:
                facts: Any = client.info("replication")
            replicas = [facts.get(f"slave{n}", {}) for n in range(2)]
            return all(one.get("state") == "online" for one in replicas)

        wait_until(whole, 40, "the set to settle")


def role(server: ValkeyServer) -> str:
    """`master` or `slave`, as the server says itself; empty where it does not answer."""
    try:
        with server.client(socket_timeout=1) as client:
            facts: Any = client.info("replication")
            return str(facts["role"])
    except redis.RedisError:
        return ""


@contextmanager
def sentinel_set() -> Iterator[SentinelSet]:
    """A set that has settled; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        servers: list[ValkeyServer] = []
        for n in range(3):
            extra = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "10"]
            extra += ["--replica-priority", "100"]
            if n:
                extra += ["--replicaof", "127.0.0.1", str(servers[0].port)]
            server = ValkeyServer(folder / f"server-{n}", appendonly=True, extra=extra)
            stack.callback(server.kill)
            servers.append(server.start())
        sentinels = []
        for n in range(3):
            sentinel = SentinelProcess(folder / f"sentinel-{n}", servers[0].port)
            stack.callback(sentinel.kill)
            sentinels.append(sentinel.start())
        whole = SentinelSet(servers, sentinels)
        whole.settled()
        yield whole
