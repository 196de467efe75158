"""Who may reach the gateway at all."""

from __future__ import annotations

from ipaddress import ip_address

from headgate.shared.errors import WrongUse


def require_loopback(host: str) -> None:
    """Raise WrongUse unless this is an address of this machine alone."""
    if host != "localhost" and not _is_loopback(host):
        raise WrongUse("--host", host, "without keys it serves this machine only: use 127.0.0.1")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
