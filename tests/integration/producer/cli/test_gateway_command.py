"""`headgate gateway`: its port, its certificate, and what its signals do."""

from __future__ import annotations

import signal
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from tests.support.child import wait_until
from tests.support.command import headgate
from tests.support.gateway import Gateway


def test_a_port_that_is_taken_is_told_before_anything_else(tmp_path: Path) -> None:
    env = {"HEADGATE_HOME": str(tmp_path / "home")}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for workers in ("1", "2"):
            ended = headgate(["gateway", "--port", port, "--workers", workers], env)
            assert (ended.code, "listen" in ended.out + ended.err) == (2, False), ended.err
            assert f"--port: {port}: cannot be used (Address already in use)" in ended.err


class SecureGateway(Gateway):
    """A gateway with TLS."""

    def ready(self) -> bool:
        """Whether it shows a certificate."""
        try:
            return bool(self.shown())
        except OSError:
            return False

    def shown(self) -> bytes:
        """The certificate that a new connection gets."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with (
            socket.create_connection(("127.0.0.1", self.port), 5) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            return wrapped.getpeercert(binary_form=True) or b""


def issue(certificate: Path, key: Path) -> None:
    """Write a new certificate and its key."""
    issued = trustme.CA().issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_reads_the_certificate_anew_in_every_process(workers: str, tmp_path: Path) -> None:
    certificate, key = (tmp_path / name for name in ("tls.crt", "tls.key"))
    issue(certificate, key)
    env = {
        "HEADGATE_HOME": str(tmp_path / "home"),
        "HEADGATE_GATEWAY_TLS_CERT": str(certificate),
        "HEADGATE_GATEWAY_TLS_KEY": str(key),
    }
    with SecureGateway(env, tmp_path, "--workers", workers) as gateway:
        before = gateway.shown()
        issue(certificate, key)
        gateway.signal(signal.SIGHUP)
        wait_until(lambda: gateway.shown() != before, 20, "the new certificate")
        # Each connection may get another process: in the end none shows the old one.
        wait_until(lambda: before not in {gateway.shown() for _ in range(20)}, 20, "all processes")
        assert gateway.running
        assert gateway.stop(30) == 0
