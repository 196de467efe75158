"""Decides by host and origin who may knock, before anyone looks at a key. Nothing here does I/O.

A browser sends what any web page asks for, to this machine, too. Keys keep pages of strangers out.
A gateway that is open has none: it listens on loopback only, and takes no request that a page of
another origin made, nor one under a name that such a page made up for this machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self
from urllib.parse import urlsplit

from headgate.producer.callers.caller import Caller
from headgate.producer.callers.refused import KeyRefused
from headgate.shared.errors import WrongUse, shown
from headgate.shared.gateway_settings import GatewaySettings

HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4000}", re.ASCII)
METHODS = "GET, POST, DELETE, OPTIONS"
PREFLIGHT_S = 600
"""How long a browser may remember the answer to a preflight."""

CorsHeaders = dict[str, str]


def origins_of(setting: str) -> frozenset[str]:
    """Return the origins of HEADGATE_GATEWAY_ORIGINS."""
    return frozenset(filter(None, map(str.strip, setting.split(","))))


def require_loopback(host: str) -> None:
    """Raise WrongUse unless a gateway at this address can only be reached from this machine."""
    if not is_loopback(host.strip("[]")):
        remedy = "without keys (HEADGATE_GATEWAY_OPEN=1) it serves this machine only: use 127.0.0.1"
        raise WrongUse("--host", host, remedy)


def is_loopback(name: str) -> bool:
    """Return whether this name or address is that of the same machine."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port; empty for none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Checks host and origin for one gateway.

    `is_open`: it serves without keys. `origins`: those of the settings, whose pages may call it.
    """

    is_open: bool = False
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self:
        """Return the doorkeeper of a gateway with these settings."""
        return cls(settings.gateway_open, origins_of(settings.gateway_origins))

    def require_local(self, host: str, origin: str | None) -> None:
        """Raise KeyRefused (403) for what a page of strangers may have sent to an open gateway.

        `host` and `origin` are the headers; an empty host and no origin are fine with a gateway
        that has keys.
        """
        if not self.is_open:
            return
        if not is_loopback(host_name(host)):
            words = "an open gateway takes only loopback names, such as localhost, in Host"
            raise KeyRefused(403, "host", f"Host {shown(host)}: {words}")
        if not self._is_welcome(host, origin):
            raise _foreign(origin)

    def require_page(self, host: str, origin: str | None, caller: Caller) -> None:
        """Raise KeyRefused (403) for a web page that may not use the key of this caller."""
        if not self._is_welcome(host, origin) and origin not in caller.origins:
            raise _foreign(origin)

    def _is_welcome(self, host: str, origin: str | None) -> bool:
        """Return whether no page sent it, or one of ours, or one that the settings name."""
        if origin is None or origin in self.origins:
            return True
        # TLS may end at a proxy, so the scheme of our own pages is not known.
        return origin.partition("://")[2].lower() == host.lower() != ""

    def cors_headers(
        self, host: str, origin: str | None, of_keys: Collection[str] = ()
    ) -> CorsHeaders:
        """Return the headers that let a page of a listed origin read the answer.

        `of_keys`: the origins that some key lists. There are no credentials: keys are in headers.
        """
        if origin is None:
            return {}
        if not (origin in self.origins or origin in of_keys or self._is_welcome(host, origin)):
            return {"vary": "Origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "*",
            "vary": "Origin",
        }

    def preflight(
        self, host: str, origin: str | None, wanted: str = "", of_keys: Collection[str] = ()
    ) -> CorsHeaders:
        """Return the headers that answer the preflight of a page of this origin.

        `wanted`: the headers that the page wants to send. A browser lets no page go on whose origin
        is not in the answer.
        """
        headers = self.cors_headers(host, origin, of_keys)
        if "access-control-allow-origin" not in headers:
            return headers
        del headers["access-control-expose-headers"]
        headers["access-control-allow-methods"] = METHODS
        headers["access-control-max-age"] = str(PREFLIGHT_S)
        if HEADER_NAMES.fullmatch(wanted):
            headers["access-control-allow-headers"] = wanted
        return headers


def _foreign(origin: str | None) -> KeyRefused:
    words = f"a page of {shown(origin)} may not call this gateway"
    remedy = "list its origin in HEADGATE_GATEWAY_ORIGINS, or in the key"
    return KeyRefused(403, "origin", f"{words}; {remedy}")
