"""Parses and checks HEADGATE_REDIS_URL in all its forms, and returns an Address.

    redis://[user:password@]host[:6379][/database]
    rediss://...                                    the same over TLS, with ssl_* in the query
    redis+socket://[user:password@]/path/to.sock[?virtual_host=database]
    sentinel://[user:password@]host[:26379],host,...[/database]?master_name=NAME

Celery's spelling of the last form, `sentinel://host;sentinel://host/0`, is accepted too. The
parameters in the query are those of redis-py and Celery; others are refused. Nothing here connects.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster", "cluster", "redis-cluster", "rediss-cluster")
DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379}

TLS_NAMES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
DATABASE_NAMES = ("db", "virtual_host")
SENTINEL_NAMES = ("master_name", "sentinel_username", "sentinel_password", "ssl", *TLS_NAMES)

_CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificates of a TLS connection, and what is checked."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for redis-py and kombu."""
        found = {
            "ssl_ca_certs": self.ca_certs,
            "ssl_certfile": self.certfile,
            "ssl_keyfile": self.keyfile,
            "ssl_cert_reqs": _CERT_REQS[self.cert_reqs],
            "ssl_check_hostname": self.check_hostname and self.cert_reqs != "none",
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Address:
    """The address of Redis. `hosts`: of the sentinels if there is a `master_name`."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    master_name: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def celery_url(self) -> str:
        """Return the URL for kombu and Celery, which get TLS and sentinel parameters as options."""
        login = ""
        if self.username or self.password:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        if self.path:
            return f"redis+socket://{login}{quote(self.path)}?virtual_host={self.database}"
        return ";".join(
            f"{self.scheme}://{login}{_bracketed(host)}:{port}/{self.database}"
            for host, port in self.hosts
        )

    @property
    def is_of_this_machine(self) -> bool:
        """True for a unix socket and for loopback addresses; with sentinels, for theirs."""
        return bool(self.path) or all(_is_loopback(host) for host, _ in self.hosts)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The passwords that no log and no error may contain, plain and percent-encoded."""
        found = [one for one in (self.password, self.sentinel_password) if one]
        return tuple(form for one in found for form in {one, quote(one, safe="")})


def _is_loopback(host: str) -> bool:
    """Return whether the host is this machine. Names are not looked up, but for `localhost`."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def read(url: str) -> Address:
    """Parse a URL; raise ValueError with a remedy and without passwords."""
    scheme, sign, rest = url.partition("://")
    if scheme in CLUSTER_SCHEMES:
        raise ValueError("Celery has no transport for Redis Cluster; use a single Redis")
    if scheme not in SCHEMES or not sign:
        raise ValueError(f"must start with one of {', '.join(s + '://' for s in SCHEMES)}")
    if scheme == "sentinel":
        # Celery's spelling has URLs or hosts with `;` between them. The parameters after the last
        # host are for all.
        rest = _without_repeats(rest)
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    if "@" in path or ("@" in query and not at):
        raise ValueError("in a name or password write / as %2F, ? as %3F, # as %23, @ as %40")
    parameters = _parameters(scheme, query)
    username, colon, password = login.partition(":")
    common: dict[str, Any] = {
        "username": unquote(username) or None if at else None,
        "password": unquote(password) or None if colon else None,
    }
    if scheme == "redis+socket":
        if hosts or not path:
            raise ValueError("write the full path of the socket: redis+socket:///path/to.sock")
        return Address(
            scheme, path=f"/{unquote(path)}", database=_database("", parameters), **common
        )
    address = Address(
        scheme,
        _hosts(scheme, hosts),
        database=_database(path, parameters),
        tls=_tls(parameters) if scheme == "rediss" or parameters.get("ssl") == "true" else None,
        **common,
    )
    return _of_sentinels(address, parameters) if scheme == "sentinel" else address


_SECRET_WORD = re.compile(r"([?&][^=&#]*password=)[^&#;]*", re.IGNORECASE)


def masked(url: str) -> str:
    """Return the URL of Redis or of a database with its passwords replaced by `***`.

    In an invalid URL, everything between the first `:` and the last `@` is replaced.
    """
    scheme, sign, rest = url.partition("://")
    if sign and not (rest.startswith("/") or scheme.startswith("sqlite")):
        again = f";{scheme}://"
        rest = again.join(_hidden(part) for part in rest.split(again))
    return _SECRET_WORD.sub(r"\1***", f"{scheme}{sign}{rest}")


def _hidden(part: str) -> str:
    login, at, place = part.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{user}:***@{place}" if at and colon else part


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_repeats(rest: str) -> str:
    """Turn `u:p@a:1/0;sentinel://u:p@b:2/0?q` into `u:p@a:1,b:2/0?q`; raise ValueError."""
    first, *others = rest.split(";")
    if not others:
        return rest
    logins, hosts, path, query = set(), [], "", ""
    for part in [first, *others]:
        place, _, parameters = part.removeprefix("sentinel://").partition("?")
        place, _, database = place.partition("/")
        login, at, host = place.rpartition("@")
        if at:
            logins.add(login)
        hosts.append(host)
        path, query = database or path, parameters or query
    if len(logins) > 1:
        raise ValueError("use one name and password: those of the Redis behind the sentinels")
    login = f"{logins.pop()}@" if logins else ""
    return f"{login}{','.join(hosts)}/{path}?{query}"


def _hosts(scheme: str, place: str) -> tuple[tuple[str, int], ...]:
    found = []
    for host in place.split(",") if scheme == "sentinel" else [place]:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("the port must be a number from 0 to 65535") from None
        if not name and scheme == "sentinel":
            raise ValueError(
                "name the sentinels: sentinel://host1:26379,host2:26379/0?master_name="
            )
        found.append((unquote(name or "localhost"), port or DEFAULT_PORTS[scheme]))
    return tuple(found)


def _parameters(scheme: str, query: str) -> dict[str, str]:
    known = {
        "redis": (),
        "rediss": TLS_NAMES,
        "redis+socket": (),
        "sentinel": SENTINEL_NAMES,
    }[scheme] + DATABASE_NAMES
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    for name in parameters:
        if name in TLS_NAMES and scheme == "redis":
            raise ValueError(f"{name} needs TLS; start the URL with rediss://")
        if name not in known:
            raise ValueError(f"{name} is unknown; use {', '.join(known)}")
    return parameters


def _database(path: str, parameters: dict[str, str]) -> int:
    named = path.strip("/") or parameters.get("db") or parameters.get("virtual_host") or "0"
    if not named.isdecimal():
        raise ValueError(f"the database after the host must be a number from 0, not {named[:40]!r}")
    return int(named)


def _tls(parameters: dict[str, str]) -> Tls:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if parameters.get(name) and not Path(parameters[name]).is_file():
            raise ValueError(f"{name}: there is no file {parameters[name]}")
    reqs = parameters.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if reqs not in _CERT_REQS:
        raise ValueError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
    return Tls(
        parameters.get("ssl_ca_certs") or None,
        parameters.get("ssl_certfile") or None,
        parameters.get("ssl_keyfile") or None,
        reqs,
        parameters.get("ssl_check_hostname", "true").lower() not in ("false", "0", "no", "f", "n"),
    )


def _of_sentinels(address: Address, parameters: dict[str, str]) -> Address:
    name = parameters.get("master_name")
    if not name:
        raise ValueError("name the master that the sentinels watch: add ?master_name=NAME")
    if any(word in parameters for word in TLS_NAMES) and address.tls is None:
        raise ValueError("add ssl=true, which turns on TLS for the sentinels and the servers")
    if address.tls is None and parameters.get("ssl", "false") != "false":
        raise ValueError("ssl must be true or false")
    return replace(
        address,
        master_name=name,
        sentinel_username=parameters.get("sentinel_username") or None,
        sentinel_password=parameters.get("sentinel_password") or None,
    )
