"""Opens the connections of webhooks: to addresses that are allowed, and to no others.

The check is made on the address of the socket, at the moment at which it is opened. A name that
resolves to another address at the second look is of no use to an attacker.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from headgate.shared.webhook_target import AllowedTargets, Kind

THREADS = 8
"""Names that are resolved at once. A name server that hangs must not hold up other threads."""

NOBODYS = "192.0.2.1"
"""An address that no machine has (RFC 5737)."""

AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
"""What `getaddrinfo` returns: family, type, protocol, name, and the address with its port."""


class ForbiddenAddress(OSError):
    """The address is neither public nor allowed."""


def open_socket(info: AddressInfo) -> socket.socket:
    """Open a socket for this address; it is not connected yet."""
    family, kind, protocol, _, _ = info
    return socket.socket(family, kind, protocol)


class Dial:
    """Opens the sockets of one kind of connection, as aiohttp's connector asks for them."""

    def __init__(
        self, allowed: AllowedTargets, kind: Kind,
        opened: Callable[[AddressInfo], socket.socket] = open_socket,
    ) -> None:  # fmt: skip
        self._allowed, self._kind, self._opened = allowed, kind, opened

    def __call__(self, info: AddressInfo) -> socket.socket:
        """Return a socket for this address; raise ForbiddenAddress if it may not be dialled."""
        address = str(info[4][0])
        if not self._allowed.may_dial(self._kind, address):
            raise ForbiddenAddress("the address of its host is not public or not allowed")
        is_named = self._kind == "named" or self._allowed.may_dial("plain", address)
        if not is_named and is_own(address):
            raise ForbiddenAddress("the address of its host is this machine's own")
        return self._opened(info)


def is_own(address: str) -> bool:
    """Return whether an interface of this machine has the address: only then can it be bound."""
    return _binds(address) and not _binds_anything()


@cache
def _binds_anything() -> bool:
    """Return whether the system lets programs bind addresses that it does not have."""
    return _binds(NOBODYS)


def _binds(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


class ThreadedNames(AbstractResolver):
    """Resolves names in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of the host; raise OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=of_family, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for of_family, address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """End the threads, once what they look up has ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(
        host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    return [(int(of_family), str(address[0])) for of_family, _, _, _, address in found]
