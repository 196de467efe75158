"""Redis by every form of its URL: each test of a kill or an outage can run on all of them.

TLS ends in a proxy before the server, since the binary of the tests has none.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import trustme

from tests import ROOT
from tests.support.proxy import TcpProxy
from tests.support.sentinels import sentinel_set
from tests.support.servers import ValkeyServer, short_folder

FORMS = ("redis", "rediss", "redis+socket", "sentinel", "acl and prefix")

COMMON = ("embedded", "redis")

PREFIX = "acme:"
USER = "headgate"
PASSWORD = "p@ss:w/rd#1?%&;,+é"  # noqa: S105 (each character that a URL could trip over)
SECRETS = (PASSWORD, quote(PASSWORD, safe=""))
ADMIN, ADMIN_PASSWORD = "admin", "admin-of-the-tests"
ACL_FILE = ROOT / "deploy" / "redis.acl"


@dataclass
class RedisForm:
    """A running Redis, and what the environment of a process must say to reach it."""

    env: dict[str, str]
    server: ValkeyServer
    kill_and_return: Callable[[], None]


class Certificates:
    """A certificate authority of the test's own, its server's certificate and a client's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca_file))

    def server_side(
        self, *names: str, client_needed: bool = False, **how: object
    ) -> ssl.SSLContext:
        """What a TLS server shows: a certificate for `names` (default: 127.0.0.1)."""
        shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued = self._authority.issue_cert(*(names or ("127.0.0.1",)), **how)  # type: ignore[arg-type]
        issued.configure_cert(shown)
        if client_needed:
            shown.verify_mode = ssl.CERT_REQUIRED
            self._authority.configure_trust(shown)
        return shown

    @cached_property
    def client_files(self) -> tuple[Path, Path]:
        """The certificate and the key of a client that this authority vouches for."""
        issued = self._authority.issue_cert("worker@example.com")
        files = self._folder / "client.pem", self._folder / "client.key"
        issued.cert_chain_pems[0].write_to_path(str(files[0]))
        issued.private_key_pem.write_to_path(str(files[1]))
        return files

    def query(self, *, client: bool = False, **words: str) -> str:
        """The query of a rediss:// URL that trusts this authority."""
        words = {"ssl_ca_certs": str(self.ca_file), "ssl_cert_reqs": "required", **words}
        if client:
            words["ssl_certfile"], words["ssl_keyfile"] = map(str, self.client_files)
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in words.items())


class AclServer(ValkeyServer):
    """A Valkey with the users of deploy/redis.acl, and one more for the tests themselves."""

    def __init__(self, folder: Path, *, without: tuple[str, ...] = (), port: int | None = None):
        """Prepare it; `without` are commands that the user of Headgate lacks."""
        folder.mkdir(parents=True, exist_ok=True)
        rules = ACL_FILE.read_text().replace("CHANGE-ME", PASSWORD).replace("~*", f"~{PREFIX}*")
        lines = [line for line in rules.splitlines() if line and not line.startswith("#")]
        taken = " ".join(f"-{command}" for command in without)
        lines = [f"{line} {taken}" if line.startswith(f"user {USER}") else line for line in lines]
        lines.append(f"user {ADMIN} on >{ADMIN_PASSWORD} ~* &* +@all")
        (folder / "users.acl").write_text("\n".join(lines) + "\n")
        super().__init__(
            folder, port=port, appendonly=True, extra=["--aclfile", str(folder / "users.acl")]
        )

    @property
    def url(self) -> str:
        """The address for the tests themselves."""
        return f"redis://{ADMIN}:{ADMIN_PASSWORD}@127.0.0.1:{self.port}/0"

    @property
    def headgate_url(self) -> str:
        """The address for Headgate."""
        return f"redis://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/0"

    def refused(self) -> list[str]:
        """What was refused to anyone, by ACL LOG: user, reason and object."""
        with self.client() as client:
            found = client.acl_log()
        return [f"{one['username']}: {one['reason']}: {one['object']}" for one in found]


def jobs_of(form: str) -> int:
    """How many jobs a test of a kill runs: fewer where only the way to the server differs."""
    return 2_000 if form in COMMON else 500


@contextmanager
def tls_front(server_port: int, shown: ssl.SSLContext) -> Iterator[TcpProxy]:
    """A port that speaks TLS for the server."""
    front = TcpProxy(server_port, tls=shown).start()
    try:
        yield front
    finally:
        front.stop()


@contextmanager
def opened(form: str) -> Iterator[RedisForm]:
    """A Redis that is reached by this form; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        env: dict[str, str] = {}
        if form == "sentinel":
            whole = stack.enter_context(sentinel_set())

            def fail_over() -> None:
                master = whole.master
                master.kill()
                whole.new_master(master)
                master.start()
                whole.settled()

            env["HEADGATE_REDIS_URL"] = whole.url
            yield RedisForm(env, whole.servers[0], fail_over)
            return
        if form == "acl and prefix":
            server: ValkeyServer = AclServer(folder)
            env["HEADGATE_KEY_PREFIX"] = PREFIX
        elif form == "redis+socket":
            server = ValkeyServer(folder, unixsocket=folder / "s", appendonly=True)
        else:
            server = ValkeyServer(folder, appendonly=True)
        stack.callback(server.kill)
        server.start()
        url = server.url
        if isinstance(server, AclServer):
            url = server.headgate_url
        elif form == "redis+socket":
            url = f"redis+socket://{server.unixsocket}?virtual_host=1"
        elif form == "rediss":
            trusted = Certificates(folder)
            shown = trusted.server_side(client_needed=True)
            front = stack.enter_context(tls_front(server.port, shown))
            url = f"rediss://127.0.0.1:{front.port}/0?{trusted.query(client=True)}"
        env["HEADGATE_REDIS_URL"] = url

        def kill_and_return() -> None:
            server.kill()
            server.start()

        yield RedisForm(env, server, kill_and_return)
