"""Where a webhook may be sent: to public addresses, and to what the operator allows. Pure.

A name says nothing about the address behind it, which may change between two looks. So what counts
is the address that is dialled; the checks of a URL only refuse early what can never be dialled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal
from urllib.parse import SplitResult, urlsplit

Address = IPv4Address | IPv6Address

LONGEST_URL = 2048

_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]"
                   r"([a-z0-9_-]{0,61}[a-z0-9_])?)*", re.ASCII)  # fmt: skip
_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.ASCII)
"""The last part of a host that some resolvers read as an address: 127.1, 0x7f.1, 2130706433."""

#: IANA's registries of special-purpose addresses (2026-11), and the address at which Azure serves
#: its machines. `is_global` of older Python releases does not know all of them.
_SPECIAL = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32",
        "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
)  # fmt: skip
_UNICAST = IPv6Network("2000::/3")
_SPECIAL_6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))
_TRANSLATED = IPv6Network("64:ff9b::/96")
"""NAT64: the last 32 bits are the IPv4 address that is reached in the end."""


def is_public(address: str) -> bool:
    """Return whether everyone on the internet may have this address.

    Private, loopback, link-local, multicast, documentation and tunnel addresses are not public.
    """
    found = _plain(address)
    if isinstance(found, IPv4Address):
        return found.is_global and not any(found in network for network in _SPECIAL)
    if found in _TRANSLATED:
        return is_public(str(IPv4Address(int(found) & 0xFFFFFFFF)))
    return found in _UNICAST and found.is_global and not any(found in one for one in _SPECIAL_6)


def _plain(address: str) -> Address:
    """Return the address without its zone; an IPv4 address in the form of IPv6 as IPv4."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


Kind = Literal["named", "secure", "plain"]
"""What a connection may reach: a host that the operator named reaches any address; https reaches
public addresses and allowed networks; http reaches allowed networks only."""


@dataclass(frozen=True, slots=True)
class AllowedTargets:
    """What the operator allows besides public addresses: hosts by name, and networks."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def read(cls, text: str) -> AllowedTargets:
        """Return what the text names, with commas in between; raise ValueError."""
        hosts: set[str] = set()
        networks: list[IPv4Network | IPv6Network] = []
        for part in filter(None, map(str.strip, text.lower().split(","))):
            try:
                networks.append(ip_network(part, strict=False))
            except ValueError:
                if not is_host_name(part):
                    raise ValueError(
                        "give host names, addresses or networks such as hooks.internal,10.0.0.0/8"
                    ) from None
                hosts.add(part.rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def kind_of(self, scheme: str, host: str) -> Kind:
        """Return what a connection of this scheme to this host may reach."""
        if host.removesuffix(".") in self.hosts:
            return "named"
        return "secure" if scheme == "https" else "plain"

    def may_dial(self, kind: Kind, address: str) -> bool:
        """Return whether a connection of this kind may be opened to this address."""
        if kind == "named" or self._has(address):
            return True
        return kind == "secure" and is_public(address)

    def _has(self, address: str) -> bool:
        found = _plain(address)
        return any(found in network for network in self.networks)


def is_host_name(host: str) -> bool:
    """Return whether the text is a host name in lower case, and no address in any form."""
    name = host.removesuffix(".")
    return bool(_HOST.fullmatch(name)) and not _NUMERIC.fullmatch(name.rpartition(".")[2])


def checked_url(url: str) -> str:
    """Return the URL of a webhook; raise ValueError that says what to write instead."""
    if len(url) > LONGEST_URL:
        raise ValueError(f"use at most {LONGEST_URL} characters")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError("use ASCII without blanks; encode other characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("use a URL such as https://hooks.example.com/jobs") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("use a URL such as https://hooks.example.com/jobs")
    if "@" in parts.netloc or parts.fragment or "\\" in url:
        raise ValueError("leave out user, password, fragment and backslashes")
    if literal_of(parts) is None and not is_host_name(parts.hostname):
        raise ValueError("its host must be a name or an address such as 203.0.113.7")
    return url


def literal_of(parts: SplitResult) -> str | None:
    """Return the address that the URL names instead of a host; None if it names a host."""
    host = parts.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return None
    return host


def why_forbidden(url: str, allowed: AllowedTargets) -> str | None:
    """Return why this checked URL can never be dialled, and what to do; None if it may be."""
    parts = urlsplit(url)
    host, literal = (parts.hostname or "").removesuffix("."), literal_of(parts)
    kind = allowed.kind_of(parts.scheme, host)
    may = "or ask the operator to add it to HEADGATE_WEBHOOK_ALLOW"
    if kind == "named" or (literal is not None and allowed.may_dial(kind, literal)):
        return None
    if literal is not None and not is_public(literal):
        return f"use a public address, {may}"
    if kind == "plain" and (literal is not None or not allowed.networks):
        return f"use https, {may}"
    if (host == "localhost" or host.endswith(".localhost")) and not allowed.networks:
        return f"use a public host, {may}"
    return None


def shown_url(url: str) -> str:
    """Return the URL as operators see it: without its query, which may hold a secret."""
    return f"{url.partition('?')[0]}?..." if "?" in url else url
