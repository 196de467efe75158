"""The address of a caller, and how many wrong keys came from it lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

WRONG_PER_MINUTE = 10
"""Wrong keys of one address in a minute, before it has to wait."""

MAX_ADDRESSES = 10_000
"""Addresses of which wrong keys are remembered; the ones not heard of for longest are forgotten."""

MAX_HOPS = 32
"""Addresses that are read of one X-Forwarded-For, from the right."""

Network = IPv4Network | IPv6Network


def proxies_of(setting: str) -> tuple[Network, ...]:
    """Return the networks of HEADGATE_GATEWAY_PROXIES."""
    parts = filter(None, map(str.strip, setting.split(",")))
    return tuple(ip_network(part, strict=False) for part in parts)


def client_address(peer: str, headers: Mapping[str, str], proxies: tuple[Network, ...]) -> str:
    """Return the address of the caller: the peer's, or the one that a trusted proxy names.

    X-Forwarded-For is believed only from proxies: the rightmost address that is no proxy is the
    caller's. What stands left of it may be made up.
    """
    found = _plain(peer)
    if not proxies or not _is_among(found, proxies):
        return found
    hops = headers.get("x-forwarded-for", "").rsplit(",", MAX_HOPS)[-MAX_HOPS:]
    for hop in reversed(hops):
        named = _without_port(hop.strip())
        if not _is_address(named):
            break
        found = _plain(named)
        if not _is_among(found, proxies):
            break
    return found


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _plain(text: str) -> str:
    """Return an address in its shortest form; an IPv4 address in IPv6 as IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return text  # a unix socket has none
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _is_among(text: str, networks: tuple[Network, ...]) -> bool:
    return _is_address(text) and any(ip_address(text) in network for network in networks)


def place_of(address: str) -> str:
    """Return what is limited as one address: an IPv4 address, or a /64 of IPv6.

    A single home has a whole /64 of addresses.
    """
    if ":" not in address or not _is_address(address):
        return address
    return str(ip_network((address.partition("%")[0], 64), strict=False))


@dataclass(slots=True)
class _Place:
    left: float
    at_s: float


class WrongKeys:
    """Counts the wrong keys of each address: ten at once, and ten a minute."""

    def __init__(self, clock: Callable[[], float], most: int = MAX_ADDRESSES) -> None:
        self._clock, self._most = clock, most
        self._places: OrderedDict[str, _Place] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """Return the seconds until another key of this address is looked at; 0: now."""
        place = self._places.get(place_of(address))
        if place is None:
            return 0.0
        missing = 1 - self._left(place)
        return max(0.0, missing * 60 / WRONG_PER_MINUTE)

    def add(self, address: str) -> None:
        """Count one wrong key of this address."""
        name, now_s = place_of(address), self._clock()
        place = self._places.pop(name, None)
        left = WRONG_PER_MINUTE if place is None else self._left(place)
        self._places[name] = _Place(left - 1, now_s)
        while len(self._places) > self._most:
            self._places.popitem(last=False)

    def _left(self, place: _Place) -> float:
        since_s = self._clock() - place.at_s
        return min(WRONG_PER_MINUTE, place.left + since_s * WRONG_PER_MINUTE / 60)
